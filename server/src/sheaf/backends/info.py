"""What a backend says of itself as data: what it needs, which models it loads, and on which terms.

Lists, tables, errors and pages are made from it or checked against it, so that nobody keeps them by hand.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Published weights that come under one licence.

    Attributes:
        models: What `model_id` is for these, in lower case; `*` stands for anything.
        license: An SPDX identifier, or the name of the licence where it has none.
        card: Where the weights and their terms are described.
        gated: Whether only those get them who have agreed to the terms on the page of the weights.
        restriction: A sentence on what the licence does not allow; empty where commercial use is allowed.
    """

    models: tuple[str, ...]
    license: str
    card: str
    gated: bool = False
    restriction: str = ""


@dataclass(frozen=True, kw_only=True)
class BackendInfo:
    """What cannot be seen from a backend's methods.

    Attributes:
        title: What people call its models.
        extra: The extra of `sheaf-serve` that brings its libraries.
        libraries: The modules that it imports to load a model.
        default_model: What `model_id` is where no setting names one; None where there is no such default.
        memory_mb: About how many MB the weights of the default model take in its default dtype.
        weights: Published weights that it loads, by licence; empty where nothing is downloaded.
        papers: Where its models are described.
    """

    title: str
    extra: str
    libraries: tuple[str, ...]
    default_model: str | None = None
    memory_mb: int = 0
    weights: tuple[Weights, ...] = ()
    papers: tuple[str, ...] = ()

    def weights_of(self, model_id: object) -> Weights | None:
        """The published weights of that name; None for others, such as a folder, whose terms nobody knows."""
        name = str(model_id).lower()
        for weights in self.weights:
            if any(fnmatchcase(name, pattern) for pattern in weights.models):
                return weights
        return None
