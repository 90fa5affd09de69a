"""Every fast path of a step against the plain one, also on CUDA; both networks at one time."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.graph import Node
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

import blind_knowledge_dist_training as training
from data.augmentation import augment_cifar10
from data.loader import Loader
from models import epoch_statistics
from models.build import baseline_loss, make_training
from models.fast import cuda_graph, training_step
from models.fast.concurrent_networks import concurrently, in_turn
from models.fast.training_step import WARM_UP, StepResult, TrainingStep
from models.losses import agreement
from models.robust_phase import LossInputs, loss_with_departures
from models.teacher_student import TeacherStudent, build_baseline, build_pair
from tests.conftest import devices, synchronisation_refused, training_options
from utils.devices import pick_machine
from utils.seeding import be_deterministic

CLASSES, BATCH, SHORT = 10, 16, 5
TOLERANCES = {False: 1e-3, True: 0.1}  # of fp32 and of bf16: relative distance of all gradients
Batch = tuple[Tensor, ...]
pluses = pytest.mark.parametrize("plus", [False, True], ids=["bkd", "bkd+"])


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    yield
    torch.set_num_threads(before)


def batches(device: str, count: int, digits: bool = False, plus: bool = False) -> Iterator[Batch]:
    """Full ones, every third a short one; each with its own alphas.

    In the robust phase of bkd+ with strong views.
    """
    shape = (1, 8, 8) if digits else (3, 32, 32)
    generator = torch.Generator().manual_seed(7)
    for number in range(count):
        size = SHORT if number % 3 == 2 else BATCH
        strong = plus and number > 2
        images = torch.randn(size * (1 + strong), *shape, generator=generator)
        labels = torch.randint(CLASSES, (size,), generator=generator)
        alpha = torch.rand(size, generator=generator) * (number > 2)
        inputs = loss_inputs(alpha, number if plus else 0, generator)
        yield tuple(each.to(device) for each in (images, labels, *inputs))


def loss_inputs(alpha: Tensor, number: int, generator: torch.Generator) -> LossInputs:
    """All that the loss takes of a batch; the robust phase of bkd+ begins with the fourth."""

    def shares(rows: int) -> Tensor:
        return torch.randn(rows, CLASSES, generator=generator).softmax(1)

    size, robust = len(alpha), number > 2
    transition = shares(CLASSES) if robust else torch.eye(CLASSES)
    partner = torch.randperm(size, generator=generator)
    weight = torch.tensor(0.6 if robust and number % 2 else 1.0)
    mean = torch.tensor(float(robust))
    visibility = torch.tensor(0.4 if number % 4 == 0 else 1.0)
    return LossInputs(
        alpha, shares(size), transition, shares(2), mean, partner, weight, visibility, mean
    )


def new_step(
    device: str, *, plain=False, digits=False, build=build_pair, width=4, plus=False, **how: bool
) -> TrainingStep:
    """A step of narrow networks; `how`: in bf16, or compiled."""
    torch.manual_seed(3)
    pair = build(CLASSES, width, digits=digits)
    with threads(2):  # one for each network, also where the tests run with one
        pair.prepare(torch.device(device), bf16=how.pop("bf16", False), plain=plain)
    fused = None if plain else True
    optimizer = torch.optim.SGD(pair.parameters(), 0.05, 0.9, weight_decay=5e-4, fused=fused)
    loss_function = loss_with_departures if build is build_pair else baseline_loss
    if plus:
        prior = torch.full((CLASSES,), 1 / CLASSES, device=device)
        departures = {"posterior": True, "both_learn": True, "naive_compensation": True}
        departures |= {"class_balance": 1.0, "prior": prior}
        loss_function = partial(loss_with_departures, **departures, mixup=True)
    return TrainingStep(pair.train(), optimizer, loss_function, BATCH, **how)


def flat(tensors: Iterator[Tensor]) -> Tensor:
    return torch.cat([each.detach().flatten().cpu().double() for each in tensors])


def distance(one: Tensor, other: Tensor) -> float:
    return ((one - other).norm() / other.norm()).item()


def surviving_nodes(step: TrainingStep, batch: Batch, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many of autograd's nodes at the weights still exist after a step."""

    def node(weight: Tensor) -> Node:  # the one there is, or a new one
        return weight.expand_as(weight).grad_fn.next_functions[0][0]

    def backward(*arguments: object) -> None:
        for weight in step.weights:
            node(weight).metadata["of this step"] = True
        assert all("of this step" in node(weight).metadata for weight in step.weights)
        TeacherStudent.backward(step.pair, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(step.pair, "backward", backward)
        step(*batch)
    return sum("of this step" in node(weight).metadata for weight in step.weights)


@pytest.mark.parametrize("plain", [False, True], ids=["fast", "plain"])
@pytest.mark.parametrize("build", [build_pair, build_baseline])
def test_no_autograd_node_outlives_its_step(plain: bool, build: Callable, monkeypatch):
    """It would be of another stream than the capture of a CUDA graph, which would fail."""
    step = new_step("cpu", plain=plain, build=build)
    for batch in batches("cpu", 3):
        assert surviving_nodes(step, batch, monkeypatch) == 0


@devices
@pytest.mark.parametrize(
    ("build", "plus"), [(build_pair, False), (build_pair, True), (build_baseline, False)]
)
def test_the_plain_step_is_the_obvious_one_bit_for_bit(device: str, build: Callable, plus: bool):
    be_deterministic()  # else cuDNN sums some gradients in any order
    step = new_step(device, plain=True, build=build, plus=plus)
    twin = new_step(device, plain=True, build=build, plus=plus)
    for images, labels, *inputs in batches(device, 6, plus=plus):
        result = step(images, labels, *inputs)
        teacher, student = twin.pair.teacher(images), twin.pair.student(images)
        loss = twin.loss_function(teacher, student, labels, inputs)
        twin.optimizer.zero_grad()
        loss.total.backward()
        twin.optimizer.step()
        teacher, student = teacher[: len(labels)], student[: len(labels)]  # no strong views
        assert torch.equal(result.means[:3], torch.stack([*loss]).detach())
        assert_close(result.means[3], student.softmax(1).amax(1).mean())
        expected = agreement(teacher, student)[torch.arange(len(labels)), labels]
        assert_close(result.agreement, expected)
        assert_close(result.agreements, agreement(teacher, student))
        marginals = torch.stack([teacher.softmax(1).mean(0), student.softmax(1).mean(0)])
        assert_close(result.marginals, marginals)
        for weight, other in zip(step.weights, twin.weights, strict=True):
            assert torch.equal(weight, other) and torch.equal(weight.grad, other.grad)
    for name, values in twin.pair.state_dict().items():
        assert torch.equal(values, step.pair.state_dict()[name]), name


@devices
@pytest.mark.parametrize("build", [build_pair, build_baseline])
@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("digits", [False, True], ids=["cifar", "digits"])
def test_one_fast_step_is_close_to_the_plain_one(device, build, bf16, digits, monkeypatch):
    # A rounding error that moves an activation across ReLU's kink changes gradients by a percent.
    monkeypatch.setattr(F, "relu", lambda x, inplace: F.silu(x, inplace))
    for batch in [*batches(device, 3, digits)][::2]:  # a full one, and a short one
        fast = new_step(device, bf16=bf16, digits=digits, build=build, width=8)
        plain = new_step(device, plain=True, digits=digits, build=build, width=8)
        before = flat(plain.weights)
        result, expected = fast(*batch), plain(*batch)
        gradients = [flat(weight.grad for weight in step.weights) for step in (fast, plain)]
        assert 0 < distance(*gradients) < TOLERANCES[bf16]
        assert distance(*[flat(step.weights) - before for step in (fast, plain)]) < TOLERANCES[bf16]
        assert_close(result.means, expected.means, rtol=0.05 if bf16 else 1e-4, atol=1e-3)
        assert_close(result.agreement, expected.agreement, rtol=0.2 if bf16 else 1e-3, atol=0.02)
        assert all(each.dtype == torch.float32 for each in (*result[:2], *fast.weights))


@devices
@pluses
def test_many_fast_steps_follow_the_plain_ones(device: str, plus: bool):
    """Both batch sizes beyond the warm-up; learning rate and alphas change on the way."""
    fast = new_step(device, compiled=device == "cuda", plus=plus)
    plain = new_step(device, plain=True, plus=plus)
    for number, batch in enumerate(batches(device, 3 * (WARM_UP + 2), plus=plus)):
        for step in (fast, plain):
            step.optimizer.param_groups[0]["lr"] = 0.01 if number < 5 else 0.002
        means = fast(*batch).means.clone()  # valid until the next step
        assert_close(means, plain(*batch).means, rtol=0.02, atol=2e-3)
    assert distance(flat(fast.weights), flat(plain.weights)) < 0.01
    if device == "cuda":
        assert {*fast.graphs} == {((1 + plus) * size, size) for size in (BATCH, SHORT)}


@pluses
def test_a_compiled_step_is_close_to_the_plain_one(plus: bool, capsys, monkeypatch):
    fast = new_step("cpu", compiled=True, digits=True, plus=plus)
    plain = new_step("cpu", plain=True, digits=True, plus=plus)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    compiled = []
    for batch in batches("cpu", 4, digits=True, plus=plus):
        result, expected = fast(*batch), plain(*batch)
        assert_close(result.means, expected.means, rtol=1e-3, atol=1e-4)
        compiled.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert distance(flat(fast.weights), flat(plain.weights)) < 1e-3
    assert surviving_nodes(fast, batch, monkeypatch) == 0
    if fast.compiled:  # there is a compiler
        # The losses, and one network for both; nothing again for the short batch or other alphas.
        # Again for strong views, once.
        assert compiled == [2] * 3 + [4 if plus else 2]
    else:
        assert "continuing without compiled networks" in capsys.readouterr().out


@pluses
def test_each_batch_size_is_recorded_once_and_replayed(plus: bool, monkeypatch: pytest.MonkeyPatch):
    """With a substitute for CUDA's graphs, which runs the recorded work again."""
    step, plain = (new_step("cpu", digits=True, plus=plus) for _ in range(2))
    events = []

    def capture(work: Callable[[], StepResult]) -> tuple[Callable[[], None], StepResult]:
        before = {name: values.clone() for name, values in step.pair.state_dict().items()}
        standing = work()
        gradients = [weight.grad for weight in step.weights]
        step.pair.load_state_dict(before)  # a capture runs nothing
        size = len(standing.agreement)
        events.append(("capture", size))

        def replay() -> None:
            events.append(("replay", size))
            results = [*work(), *(weight.grad for weight in step.weights)]
            for stands, new in zip([*standing, *gradients], results, strict=True):
                stands.copy_(new)

        return replay, standing

    monkeypatch.setattr(cuda_graph, "capture", capture)
    monkeypatch.setattr(training_step, "on_side_stream", lambda work, side: work())
    step.graphed = True
    for batch in batches("cpu", 15, digits=True, plus=plus):
        result, expected = step(*batch), plain(*batch)
        assert all(torch.equal(a, b) for a, b in zip(result, expected, strict=True))
        assert torch.equal(flat(step.weights), flat(plain.weights))
    # Ten full batches and five short ones, the first of each before its capture; of bkd+ three
    # batches are without strong views.
    assert events.count(("replay", BATCH)) == (8 if plus else 10) - WARM_UP
    assert events.count(("replay", SHORT)) == (4 if plus else 5) - WARM_UP
    assert [size for what, size in events if what == "capture"] == [BATCH, SHORT]


@pytest.mark.parametrize("missing", ["compiled networks", "CUDA graphs"])
def test_without_a_compiler_or_cuda_graphs_a_line_says_so(missing: str, monkeypatch, capsys):
    def refuse(*_: object) -> None:
        raise RuntimeError("there is none\nand much more")

    monkeypatch.setattr(torch, "compile", lambda function, **options: refuse)
    monkeypatch.setattr(cuda_graph, "capture", refuse)
    monkeypatch.setattr(training_step, "on_side_stream", lambda work, side: work())
    compiled = missing == "compiled networks"
    step, plain = (new_step("cpu", digits=True, compiled=c) for c in (compiled, False))
    step.graphed = not compiled
    for batch in batches("cpu", 9, digits=True):
        assert_close(step(*batch).means, plain(*batch).means)  # not by as many threads
    line = f"continuing without {missing}, which is slower: there is none\n"
    assert capsys.readouterr().out == line


class HostReadsRefused(TorchDispatchMode):
    """What would let the host wait for CUDA is an error on the CPU too: a number that is read."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default):
            raise RuntimeError(f"{function} in a step")
        return function(*args, **(kwargs or {}))


def refusing(batches: Iterable[Batch], device: str) -> Iterator[Batch]:
    """The batches; until the last of them is used up the host may wait for nothing."""
    with synchronisation_refused() if device == "cuda" else HostReadsRefused():
        yield from batches


@devices
@pytest.mark.parametrize("method", ["bkd", "bkd+"])
def test_no_step_of_an_epoch_waits_for_the_device(device: str, method: str, monkeypatch):
    """With augmented images, mixed ones among them, and averaged weights, in both phases."""
    monkeypatch.setitem(epoch_statistics.STEPS_PER_CHECK, "cpu", 50)  # as on CUDA
    if device == "cpu":  # where torch's own reads its input
        monkeypatch.setattr(F, "one_hot", lambda labels, count: torch.eye(count)[labels])
    words = ("--width", 4, "--batch_size", BATCH, "--ema_decay", 0.9, "--n_epoch", 4)
    words += ("--mixup", 0.5 if method == "bkd+" else 0)
    args = training_options("--method", method, *words)
    generator = torch.Generator(device).manual_seed(0)
    images = torch.randint(256, (12 * BATCH + SHORT, 3, 32, 32), dtype=torch.uint8)
    labels = torch.arange(len(images)) % CLASSES
    how = {"batch_size": BATCH, "shuffle": True, "augment": augment_cifar10}
    how |= {"mean": (0.5,) * 3, "std": (0.2,) * 3, "memory_format": torch.channels_last}
    loader = Loader(images, labels, generator=generator, **how)
    state = make_training(args, CLASSES, loader, pick_machine(device, "auto", "auto"))
    for epoch in range(2 * WARM_UP):  # networks are compiled and graphs captured in the first
        batches = refusing(loader, device) if epoch > WARM_UP else iter(loader.after(0))
        if epoch == 1:
            state.robust_phase.begin(torch.rand(len(images), device=device))
        with closing(batches):
            training.train_epoch(state, batches, epoch, averaging=epoch > 0)
        state.statistics.reset()
    assert state.averaged.updates == len(loader) * (2 * WARM_UP - 1)
    assert not state.step.compiled or set(state.step.graphs) == {BATCH, SHORT}
    with pytest.raises(RuntimeError), closing(refusing(loader, device)) as batches:
        next(batches)[1].max().item()


@devices
def test_prepared_pairs_are_channels_last_unless_plain(device: str):
    fast, plain = new_step(device).pair, new_step(device, plain=True).pair
    weights = (pair.teacher.layer1[0].conv1.weight for pair in (fast, plain))
    formats = [each.is_contiguous(memory_format=torch.channels_last) for each in weights]
    assert formats == [True, False]
    assert plain.run_both is in_turn
    baseline = new_step(device, build=build_baseline).pair
    assert baseline.run_both is in_turn  # it has only one network


@threads(2)
def test_each_network_has_a_thread_and_half_of_the_cores():
    run_both = concurrently(torch.device("cpu"))
    meet = threading.Barrier(2, timeout=60)  # passed only if both run at the same time

    def work(number: int) -> tuple[int, int, bool]:
        meet.wait()
        return number, torch.get_num_threads(), torch.is_grad_enabled()

    assert run_both(work, (4, 5)) == [(4, 1, True), (5, 1, True)]
    with torch.no_grad():
        assert run_both(work, (4, 5)) == [(4, 1, False), (5, 1, False)]
    assert torch.get_num_threads() == 2

    def fail(number: int) -> None:
        raise ValueError(f"network {number}")

    with pytest.raises(ValueError, match="network 4"):
        run_both(fail, (4, 5))


@threads(1)
def test_with_one_thread_the_networks_take_turns():
    assert concurrently(torch.device("cpu")) is in_turn
    assert in_turn(lambda a, b: a + b, (1, 2), (10, 20)) == [11, 22]
