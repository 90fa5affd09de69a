"""Class probabilities from fixed features, each image's by a model that was trained without it."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from models.label_posterior import uniform_noise
from utils.labels import Positions

STRENGTHS = (0.0003, 0.003, 0.03, 0.3)  # C of the regression, of which the likeliest is taken
BATCH = 100  # images at once through a backbone
Partition = Sequence[Positions]  # the folds of one


def backbone_features(name: str, images: Tensor, device: torch.device) -> Tensor:
    """Inputs [N, D] of the last linear layer of torchvision's network `name`, default weights.

    `images`: bytes [N, 3, H, W]; the weights' own transforms prepare them. Raises ValueError for a
    network that is none or has no such layer, OSError where the weights cannot be downloaded.
    """
    from torchvision import models

    try:
        weights = models.get_model_weights(name).DEFAULT
    except (ValueError, KeyError) as error:
        raise ValueError(f"--backbone {name}: no network of torchvision") from error
    network = models.get_model(name, weights=weights).eval().to(device)
    layers = [each for each in network.modules() if isinstance(each, nn.Linear)]
    if not layers:
        raise ValueError(f"--backbone {name}: has no linear layer to take features from")
    found: list[Tensor] = []
    layers[-1].register_forward_pre_hook(lambda _, inputs: found.append(inputs[0].cpu()))
    prepare = weights.transforms()
    with torch.no_grad():
        for batch in images.split(BATCH):
            network(prepare(batch.to(device)))
    return torch.cat(found)


def out_of_fold(features: Tensor, labels: Tensor, partitions: Sequence[Partition]) -> Tensor:
    """Probabilities [N, C] of logistic regression on features [N, D] and given labels [N].

    Each fold's held-out images are judged by a regression on the others, with the mean over several
    partitions into folds. The regularization is that under which the labels are most likely, see
    `uniform_noise`, by the first of them.
    """
    judge = partial(_out_of_fold, features, labels)
    found = {strength: judge(partitions[0], strength) for strength in STRENGTHS}
    best = max(found, key=lambda strength: _likelihood(found[strength], labels))
    others = [judge(partition, best) for partition in partitions[1:]]
    return sum(others, start=found[best]) / len(partitions)


def _likelihood(probabilities: Tensor, labels: Tensor) -> float:
    model = uniform_noise(probabilities, labels)
    return model.log_likelihoods(probabilities, labels).mean().item()


def _out_of_fold(features: Tensor, labels: Tensor, folds: Partition, strength: float) -> Tensor:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x, y = features.numpy(), labels.numpy()
    probabilities = torch.zeros(len(y), int(labels.max()) + 1, dtype=torch.double)
    for trained, _, held_out in folds:
        if len(set(y[trained].tolist())) == 1:  # nothing else is known
            probabilities[held_out, y[trained[0]]] = 1
            continue
        regression = LogisticRegression(C=strength, max_iter=200, tol=1e-3)
        model = make_pipeline(StandardScaler(), regression).fit(x[trained], y[trained])
        rows, columns = torch.from_numpy(held_out)[:, None], torch.from_numpy(model.classes_)
        probabilities[rows, columns] = torch.from_numpy(model.predict_proba(x[held_out])).double()
    return probabilities
