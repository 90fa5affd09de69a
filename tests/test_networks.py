"""The networks' state dicts, sizes and arithmetic; the pair and its inference."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from data.loader import Loader
from models.losses import agreement
from models.preact_resnet import PreResNet18, Subsampling
from models.teacher_student import TeacherStudent, build_baseline, build_pair, infer, infer_logits
from tests.test_training_step import threads

State = dict[str, Tensor]


def batch_norm_shapes(name: str, channels: int) -> dict[str, tuple[int, ...]]:
    values = ("weight", "bias", "running_mean", "running_var")
    shapes = {f"{name}.{value}": (channels,) for value in values}
    return shapes | {f"{name}.num_batches_tracked": ()}


def expected_shapes(classes: int, width: int, blocks: int, channels: int) -> dict:
    """Keys and shapes of the state dict of the authors' published checkpoints."""
    shapes = {"conv1.weight": (width, channels, 3, 3), **batch_norm_shapes("bn1", width)}
    before = width
    for stage in (1, 2, 3, 4):
        after = 2 ** (stage - 1) * width
        for block in range(blocks):
            name = f"layer{stage}.{block}"
            shapes |= batch_norm_shapes(f"{name}.bn1", before)
            shapes |= {f"{name}.conv1.weight": (after, before, 3, 3)}
            shapes |= batch_norm_shapes(f"{name}.bn2", after)
            shapes |= {f"{name}.conv2.weight": (after, after, 3, 3)}
            if before != after:
                shapes |= {f"{name}.shortcut.0.weight": (after, before, 1, 1)}
            before = after
    return shapes | {"linear.weight": (classes, before), "linear.bias": (classes,)}


def shapes_of(network: nn.Module) -> dict:
    return {key: tuple(values.shape) for key, values in network.state_dict().items()}


@pytest.mark.parametrize(("classes", "size"), [(10, 11_171_274), (100, 11_217_444)])
def test_names_and_size(classes: int, size: int):
    network = PreResNet18(classes)
    assert sum(values.numel() for values in network.parameters()) == size
    assert shapes_of(network) == expected_shapes(classes, 64, blocks=2, channels=3)
    assert all(values.requires_grad for values in network.parameters())
    pair = build_pair(classes, 4)
    for narrow in (pair.teacher, pair.student):
        assert shapes_of(narrow) == expected_shapes(classes, 4, blocks=2, channels=3)


def test_digits_network():
    pair = build_pair(10, 16, digits=True)
    for network in (pair.teacher, pair.student, build_baseline(10, 16, digits=True).teacher):
        assert shapes_of(network) == expected_shapes(10, 16, blocks=1, channels=1)
    assert [logits.shape for logits in pair(torch.zeros(3, 1, 8, 8))] == [(3, 10)] * 2


def randomise(network: nn.Module) -> None:
    """Replace the ones and zeros of the batch norms by random numbers."""
    generator = torch.Generator().manual_seed(0)
    for name, values in network.state_dict().items():
        if values.dim() == 1 and "linear" not in name:
            values.copy_(torch.rand(values.shape, generator=generator) + 0.5 * ("var" in name))


def relu_norm(x: Tensor, state: State, name: str) -> Tensor:
    keys = ("weight", "bias", "running_mean", "running_var")
    weight, bias, mean, var = (state[f"{name}.{key}"][:, None, None] for key in keys)
    return ((x - mean) / (var + 1e-5).sqrt() * weight + bias).clamp(min=0)


def block_by_hand(x: Tensor, state: State, name: str, stride: int) -> Tensor:
    h = relu_norm(x, state, f"{name}.bn1")
    out = F.conv2d(h, state[f"{name}.conv1.weight"], stride=stride, padding=1)
    out = relu_norm(out, state, f"{name}.bn2")
    out = F.conv2d(out, state[f"{name}.conv2.weight"], padding=1)
    weight = state.get(f"{name}.shortcut.0.weight")
    return out + (h if weight is None else F.conv2d(h, weight, stride=stride))


def network_by_hand(images: Tensor, state: State) -> Tensor:
    out = relu_norm(F.conv2d(images, state["conv1.weight"], padding=1), state, "bn1")
    for stage in (1, 2, 3, 4):
        out = block_by_hand(out, state, f"layer{stage}.0", 1 if stage == 1 else 2)
        out = block_by_hand(out, state, f"layer{stage}.1", 1)
    assert out.shape[-2:] == (4, 4)
    return out.mean((2, 3)) @ state["linear.weight"].T + state["linear.bias"]


@pytest.mark.parametrize("count", [25, 32])
@threads(2)
def test_subsampling_is_the_strided_convolution(count: int):
    """Also in the format in which oneDNN's own corrupts memory with such odd batches."""
    torch.manual_seed(0)
    ours = Subsampling(4, 8, 1, 2, bias=False)
    reference = nn.Conv2d(4, 8, 1, 2, bias=False)
    reference.load_state_dict(ours.state_dict())
    images = torch.randn(count, 4, 32, 32)
    results, usual = [], torch.contiguous_format
    for module, memory_format in ((ours, torch.channels_last), (ours, usual), (reference, usual)):
        module.zero_grad()
        leaf = images.clone(memory_format=memory_format).requires_grad_()
        out = module(leaf)
        out.square().sum().backward()
        results.append((out.detach(), leaf.grad, module.weight.grad))
    for result in results[:2]:
        for one, other in zip(result, results[2], strict=True):
            assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_network():
    """The identity shortcut is h = relu(bn1(x)), not x, which has negative values."""
    torch.manual_seed(0)
    network = PreResNet18(10, width=4).double().eval()
    randomise(network)
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    assert_close(network(images), network_by_hand(images, network.state_dict()))


def test_the_teachers_weights_are_drawn_first_and_none_are_shared():
    torch.manual_seed(3)
    alone = [PreResNet18(10, 4).state_dict() for _ in range(2)]
    torch.manual_seed(3)
    pair = build_pair(10, 4)
    states = pair.teacher.state_dict(), pair.student.state_dict()
    for state, expected in zip(states, alone, strict=True):
        for key, values in state.items():
            assert torch.equal(values, expected[key]), key
    assert not torch.equal(*(state["conv1.weight"] for state in states))
    teacher, student = ({values.data_ptr() for values in state.values()} for state in states)
    assert not teacher & student
    assert len([*pair.parameters()]) == sum(len([*each.parameters()]) for each in pair.children())


COUNT = 23


@pytest.fixture
def pair() -> TeacherStudent:
    """Its batch norms depend on the batch in train mode, and not in eval mode."""
    torch.manual_seed(0)
    pair = build_pair(10, 4)
    for network in (pair.teacher, pair.student):
        randomise(network)
    return pair


def new_loader(shuffle: bool) -> Loader:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(256, (COUNT, 3, 16, 16), generator=generator, dtype=torch.uint8)
    how = {"mean": (0.5,) * 3, "std": (0.2,) * 3, "batch_size": 5, "shuffle": shuffle}
    return Loader(images, torch.zeros(COUNT, dtype=torch.long), generator=generator, **how)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shuffle", [True, False])
def test_infer(pair: TeacherStudent, training: bool, shuffle: bool):
    """As all images in one batch, in data order, by each network alone."""
    images = torch.cat([images for images, *_ in new_loader(shuffle=False)])
    with torch.no_grad():
        logits = [network.eval()(images) for network in (pair.teacher, pair.student)]
    expected = agreement(*logits)
    pair.train(training)
    before = {key: values.clone() for key, values in pair.state_dict().items()}
    assert_close(infer_logits(pair, new_loader(shuffle), COUNT), tuple(logits))
    result = infer(pair, new_loader(shuffle), COUNT)
    assert_close(result, expected)
    assert not torch.allclose(expected, expected.roll(1, 0))  # another order would be noticed
    assert not result.requires_grad
    assert all(module.training is training for module in pair.modules())
    assert all(torch.equal(values, before[key]) for key, values in pair.state_dict().items())


@pytest.mark.parametrize("count", [COUNT - 1, COUNT + 1])
def test_infer_needs_each_image_once(pair: TeacherStudent, count: int):
    with pytest.raises(ValueError, match=f"{COUNT} images, not each of {count} once"):
        infer(pair.train(), new_loader(shuffle=False), count)
    assert pair.training


def test_baseline():
    torch.manual_seed(0)
    pair = build_baseline(10, 4)
    images = torch.randn(6, 3, 32, 32)
    assert_close(agreement(*pair.eval()(images)), pair.teacher(images).softmax(1))
    assert pair.trained_networks() == {"teacher": pair.teacher}
    assert len([*pair.parameters()]) == len([*pair.teacher.parameters()])
