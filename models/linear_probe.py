"""Class probabilities from fixed features, each image's by a model that was trained without it."""

import torch
from torch import Tensor, nn

from models.label_posterior import calibrate

STRENGTHS = (0.0003, 0.003, 0.03)  # C of the logistic regression, of which the likeliest is taken
BATCH = 100  # images at once through a backbone


def backbone_features(name: str, images: Tensor) -> Tensor:
    """Inputs [N, D] of the last linear layer of torchvision's network `name`, default weights.

    `images`: bytes [N, 3, H, W]; the weights' own transforms prepare them. Raises ValueError for a
    name that is none, OSError where the weights cannot be downloaded.
    """
    from torchvision import models

    try:
        weights = models.get_model_weights(name).DEFAULT
    except (ValueError, KeyError) as error:
        raise ValueError(f"--backbone {name}: no network of torchvision") from error
    network, prepare = models.get_model(name, weights=weights).eval(), weights.transforms()
    *_, last = (each for each in network.modules() if isinstance(each, nn.Linear))
    found: list[Tensor] = []
    last.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0]))
    with torch.no_grad():
        for batch in images.split(BATCH):
            network(prepare(batch))
    return torch.cat(found)


def out_of_fold(features: Tensor, labels: Tensor, folds: int) -> Tensor:
    """Probabilities [N, C] of logistic regression on features [N, D] and given labels [N].

    The regularization is that under which the labels are most likely, see `calibrate`.
    """
    found = [_out_of_fold(features, labels, folds, strength) for strength in STRENGTHS]
    return max(found, key=lambda probabilities: calibrate(probabilities, labels).likelihood)


def _out_of_fold(features: Tensor, labels: Tensor, folds: int, strength: float) -> Tensor:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x, y = features.numpy(), labels.numpy()
    by_class = labels.argsort(stable=True).numpy()  # so that each fold has its share of a class
    probabilities = torch.zeros(len(y), int(labels.max()) + 1, dtype=torch.double)
    for fold in range(folds):
        held_out = by_class[fold::folds]
        trained = by_class[[k % folds != fold for k in range(len(y))]]
        regression = LogisticRegression(C=strength, max_iter=200, tol=1e-3)
        model = make_pipeline(StandardScaler(), regression).fit(x[trained], y[trained])
        rows, columns = torch.from_numpy(held_out)[:, None], torch.from_numpy(model.classes_)
        probabilities[rows, columns] = torch.from_numpy(model.predict_proba(x[held_out])).double()
    return probabilities
