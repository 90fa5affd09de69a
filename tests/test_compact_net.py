"""The compact network: whitening, beginning, arithmetic, names and sizes; in a pair and a step."""

import itertools
from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from functorch.compile import make_boxed_func
from torch import Tensor, fx
from torch._dynamo.backends.common import aot_autograd
from torch.testing import assert_close

from models.build import baseline_loss
from models.compact_net import LOGIT_SCALE, WHITENING_FLOOR, CompactNet, whitening_filters
from models.fast.training_step import TrainingStep
from models.robust_phase import RobustPhase, loss_with_departures
from models.teacher_student import TeacherStudent, build_baseline, build_network, build_pair
from tests.test_networks import batch_norm_shapes, randomise, relu_norm, shapes_of
from tests.test_training_step import TOLERANCES, distance
from utils.options.parser import NETS

compact_pair = partial(build_pair, net="compact")


def new_images(count: int, channels: int, size: int, seed: int = 0) -> Tensor:
    """Random ones [count, channels, size, size], neighbouring pixels and the channels alike."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(count, channels, size, size, generator=generator, dtype=torch.float64)
    smooth = F.avg_pool2d(noise, 3, stride=1, padding=1)
    return 3 + smooth + 0.3 * noise + smooth.mean(1, keepdim=True)


def patches_by_hand(images: Tensor) -> Tensor:
    """Each 2x2 patch of each image: [patches, channels * 4]."""
    count, _, height, width = images.shape
    places = itertools.product(range(count), range(height - 1), range(width - 1))
    return torch.stack([images[n, :, y : y + 2, x : x + 2].flatten() for n, y, x in places])


def covariance_by_hand(rows: Tensor) -> Tensor:
    """Of the columns of [patches, K], over all patches: [K, K]."""
    return sum(torch.outer(row, row) for row in (rows - rows.mean(0))) / len(rows)


@pytest.mark.parametrize("channels", [1, 3])
def test_whitened_patches_are_uncorrelated(channels: int):
    images = new_images(4, channels, 6)
    filters = whitening_filters(images)
    kept = 4 * channels
    assert filters.shape == (2 * kept, channels, 2, 2)
    assert torch.equal(filters[kept:], -filters[:kept])
    patches = patches_by_hand(images)
    before = covariance_by_hand(patches)
    assert (before - before.diag().diag()).abs().max() > 0.1  # else there is nothing to do
    after = covariance_by_hand(patches @ filters[:kept].flatten(1).T)
    variances = torch.linalg.eigvalsh(before)
    assert_close(after, (variances / (variances + WHITENING_FLOOR)).diag(), rtol=0, atol=1e-9)
    assert_close(after, torch.eye(kept, dtype=images.dtype), rtol=0, atol=0.1)


def test_whitening_where_channels_are_equal():
    """Grey images as colour ones: what never varies stays at nothing, and no number is lost."""
    images = new_images(4, 1, 6).expand(-1, 3, -1, -1)
    filters = whitening_filters(images)[:12]
    assert filters.isfinite().all()
    after = covariance_by_hand(patches_by_hand(images) @ filters.flatten(1).T)
    assert_close(after[:8], torch.zeros(8, 12, dtype=images.dtype), rtol=0, atol=1e-9)
    assert_close(after[8:, 8:], torch.eye(4, dtype=images.dtype), rtol=0, atol=0.1)


def test_the_network_whitens():
    network = CompactNet(10, 4, blocks=2, in_channels=3)
    images = new_images(8, 3, 9).float()
    network.whiten(images)
    assert_close(network.whitening.weight, whitening_filters(images))


@pytest.mark.parametrize(("in_channels", "channels"), [(3, 8), (8, 8), (8, 3)])
def test_convolutions_begin_as_the_identity(in_channels: int, channels: int):
    torch.manual_seed(0)
    network = CompactNet(10, channels, blocks=1, in_channels=1)
    block = type(network.blocks[0])(in_channels, channels)
    images = torch.randn(2, in_channels, 5, 5)
    same = min(in_channels, channels)
    assert_close(block.conv1(images)[:, :same], images[:, :same])
    assert (block.conv1(images)[:, same:] != 0).all()  # the others are random
    images = torch.randn(2, channels, 5, 5)
    assert_close(block.conv2(images), images)


def expected_shapes(classes: int, width: int, blocks: int, channels: int) -> dict:
    """Keys and shapes of a saved network's state dict."""
    before, after = 8 * channels, width
    shapes = {"whitening.weight": (before, channels, 2, 2)}
    for block in range(blocks):
        name = f"blocks.{block}"
        shapes |= {f"{name}.conv1.weight": (after, before, 3, 3)}
        shapes |= batch_norm_shapes(f"{name}.bn1", after)
        shapes |= {f"{name}.conv2.weight": (after, after, 3, 3)}
        shapes |= batch_norm_shapes(f"{name}.bn2", after)
        before = after
        after = 4 * width
    return shapes | {"head.weight": (classes, before)}


@pytest.mark.parametrize(
    ("classes", "width", "digits"), [(10, 32, False), (100, 64, False), (10, 16, True)]
)
def test_names_and_sizes(classes: int, width: int, digits: bool):
    network = build_network(classes, width, net="compact", digits=digits)
    blocks, channels = (2, 1) if digits else (3, 3)
    assert shapes_of(network) == expected_shapes(classes, width, blocks, channels)
    frozen = [name for name, values in network.named_parameters() if not values.requires_grad]
    assert frozen == ["whitening.weight"]


def test_an_unknown_network_is_refused():
    with pytest.raises(ValueError, match="net 'wide': choose 'preact18' or 'compact'"):
        build_network(10, 16, net="wide")


@pytest.mark.parametrize(
    ("size", "blocks", "channels", "end"),
    [(32, 3, 3, 3), (8, 2, 1, 1), (64, 3, 3, 7), (9, 3, 1, 1), (33, 2, 3, 8)],
)
def test_image_sizes(size: int, blocks: int, channels: int, end: int):
    network = CompactNet(7, 4, blocks, channels)
    images = torch.randn(2, channels, size, size)
    assert network.blocks(network.whitening(images)).shape[1:3] == (16, end)
    assert network(images).shape == (2, 7)


def network_by_hand(images: Tensor, state: dict[str, Tensor], blocks: int) -> Tensor:
    out = F.conv2d(images, state["whitening.weight"]).clamp(min=0)
    for block in range(blocks):
        name = f"blocks.{block}"
        out = F.conv2d(out, state[f"{name}.conv1.weight"], padding=1)
        rows, columns = (length // 2 for length in out.shape[2:])
        out = out[:, :, : 2 * rows, : 2 * columns].unflatten(2, (rows, 2)).unflatten(4, (-1, 2))
        out = relu_norm(out.amax((3, 5)), state, f"{name}.bn1")
        out = F.conv2d(out, state[f"{name}.conv2.weight"], padding=1)
        out = relu_norm(out, state, f"{name}.bn2")
    return out.flatten(2).max(2).values @ state["head.weight"].T / 9


@pytest.mark.parametrize("digits", [False, True], ids=["cifar", "digits"])
def test_network(digits: bool):
    torch.manual_seed(0)
    network = build_network(10, 8, net="compact", digits=digits).double().eval()
    randomise(network)
    images = new_images(3, 1 if digits else 3, 8 if digits else 32)
    before = images.clone()
    expected = network_by_hand(images, network.state_dict(), 2 if digits else 3)
    assert_close(network(images), expected)
    assert expected.std() > 0.01 and LOGIT_SCALE == 1 / 9
    assert torch.equal(images, before)  # nothing is done in place to them


def whitened(
    images: Tensor, seed: int = 3, build: Callable[..., TeacherStudent] = build_pair, **how: bool
) -> TeacherStudent:
    torch.manual_seed(seed)
    pair = build(10, 8, net="compact", **how)
    for network in pair.trained_networks().values():
        network.whiten(images)
    return pair


def test_a_pair_shares_the_whitening_and_nothing_else():
    images = new_images(16, 3, 32).float()
    pair, again, other = whitened(images), whitened(images), whitened(images, seed=4)
    teacher, student = pair.teacher.state_dict(), pair.student.state_dict()
    drawn = {"blocks.1.conv1.weight", "head.weight"}  # others begin as ones, zeros, the identity
    differing = {key for key, values in teacher.items() if not torch.equal(values, student[key])}
    assert differing == drawn
    wide = compact_pair(10, 32)
    assert not torch.equal(wide.teacher.blocks[0].conv1.weight, wide.student.blocks[0].conv1.weight)
    storages = [{values.data_ptr() for values in each.values()} for each in (teacher, student)]
    assert not storages[0] & storages[1]
    for one, same in zip(again.parameters(), pair.parameters(), strict=True):
        assert torch.equal(one, same)
    assert not torch.equal(other.teacher.head.weight, pair.teacher.head.weight)


@pytest.mark.parametrize("digits", [False, True], ids=["cifar", "digits"])
def test_fast_formats_give_nearly_the_same_logits(digits: bool):
    images = new_images(16, 1 if digits else 3, 8 if digits else 32).float()
    cpu, logits = torch.device("cpu"), []
    for bf16, plain in ((False, True), (False, False), (True, False)):
        pair = whitened(images, digits=digits).prepare(cpu, bf16=bf16, plain=plain).train()
        memory_format = torch.contiguous_format if plain else torch.channels_last
        result = pair(images.contiguous(memory_format=memory_format))
        assert all(each.dtype == torch.float32 for each in result)
        logits.append(torch.cat([each.detach().flatten() for each in result]))
    plain, channels_last, bf16 = logits
    assert distance(channels_last, plain) < 1e-5
    assert 0 < distance(bf16, plain) < TOLERANCES[True]


@pytest.mark.parametrize(
    ("build", "loss"), [(build_pair, loss_with_departures), (build_baseline, baseline_loss)]
)
@pytest.mark.parametrize("plain", [True, False], ids=["plain", "fast"])
def test_the_whitening_is_never_trained(build, loss, plain: bool):
    images = new_images(16, 1, 8).float()
    pair = whitened(images, build=build, digits=True)
    pair.prepare(torch.device("cpu"), bf16=False, plain=plain)
    before = {name: values.clone() for name, values in pair.named_parameters()}
    fused = None if plain else True
    optimizer = torch.optim.SGD(pair.parameters(), 0.1, 0.9, weight_decay=0.5, fused=fused)
    step = TrainingStep(pair.train(), optimizer, loss, 16)
    robust_phase, index = RobustPhase(16, 10, torch.device("cpu")), torch.arange(16)
    for _ in range(3):
        step(images, index % 10, *robust_phase.inputs(index, robust_phase.mix(index, 0, 0)))
    step.check_weights()
    for name, values in pair.named_parameters():
        frozen = name.endswith("whitening.weight")
        assert torch.equal(values, before[name]) == frozen, name
        assert (values.grad is None) == frozen, name


def compares_values(function: Callable[..., Tensor], *inputs: Tensor) -> bool:
    """Whether the compiled backward pass of a scalar or of logits looks for equal numbers."""
    graphs = []

    def keep(graph: fx.GraphModule, example: object) -> object:
        graphs.append(graph)
        return make_boxed_func(graph.forward)

    torch._dynamo.reset()
    compiled = torch.compile(function, backend=aot_autograd(fw_compiler=keep, bw_compiler=keep))
    compiled(*inputs).sum().backward()
    equals = [node for node in graphs[-1].graph.nodes if str(node.target) == "aten.eq.Tensor"]
    return any(node.args[0].meta["val"].is_floating_point() for node in equals)


@pytest.mark.parametrize("net", NETS)
def test_no_backward_pass_compares_values_for_equality(net: str):
    """Compiled code computes activations again, and in bfloat16 on CUDA rounds them otherwise."""
    with torch.autocast("cpu", torch.bfloat16):
        assert not compares_values(build_network(10, 4, net=net), torch.randn(4, 3, 32, 32))
        images = torch.randn(4, 3, 32, 32, requires_grad=True)
        assert compares_values(lambda x: x.relu().amax((2, 3)), images)


@pytest.mark.parametrize("departures", [False, True])
def test_no_loss_compares_values_for_equality_either(departures: bool):
    index, prior = torch.arange(8), torch.full((10,), 0.1)
    robust_phase = RobustPhase(8, 10, torch.device("cpu"))
    inputs = robust_phase.inputs(index, robust_phase.mix(index, 0, 0))
    options = {"posterior": True, "both_learn": True, "class_balance": 1.0, "prior": prior}

    def loss(teacher: Tensor, student: Tensor) -> Tensor:
        chosen = options if departures else {}
        return loss_with_departures(teacher, student, index, inputs, **chosen).total

    logits = [torch.randn(8, 10, requires_grad=True) for _ in range(2)]
    assert not compares_values(loss, *logits)
