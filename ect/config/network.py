"""The block of a config that says what a network is. Loads no torch."""

from typing import Annotated, Literal

from pydantic import Field, ValidationError, WrapValidator, model_validator

from ect import registry
from ect.config.base import Block, distinct_list, short, whole

Small = whole(64)


def _span(value, check):
    """true, false or `end`; raises `ValueError`."""
    try:
        return check(value)
    except ValidationError:
        raise ValueError(f"found {short(value)}; allowed: true, false or end") from None


Span = Annotated[bool | Literal["end"], WrapValidator(_span)]


class Network(Block):
    """A U-Net."""

    channels: Annotated[int, Field(ge=8, le=4096, multiple_of=4)]
    """Base width, which `multipliers` multiply; multiples of 32 always fit the group norms."""
    multipliers: Annotated[list[Small], Field(min_length=1, max_length=12)]
    """Factors of the width, one for each resolution; each resolution is half of the one before."""
    blocks: Small
    """Residual blocks at each resolution."""
    attention: distinct_list(whole(4096)) = []
    """Resolutions (pixels of a side) with self-attention. The middle block, on the coarsest level,
    always has a layer, also with []; the plan counts it."""
    architecture: Literal[registry.ARCHITECTURES] = "ddpmpp"
    """DDPM++, NCSN++, ADM or EDM2, whose layers preserve magnitudes."""
    embedding: Literal[registry.EMBEDDINGS] = "positional"
    """Embedding of the noise level: sinusoids, or random Fourier features. EDM2 has its own."""
    classes: whole(10**6, 0) = 0
    """Number of classes the network is conditioned on; 0: unconditional."""
    span: Span = False
    """Also condition on the end r of a flow map f(x_t, t, r): true on t - r, `end` on the time
    label of r. With `end`, pretraining and solvers tell it r = t, the velocity; with true r = 0."""
    uncertainty: bool = False
    """Of EDM2: also learn u(s), by which pretraining weighs its loss: loss / exp(u) + u."""
    augment_labels: whole(64, 0) = 0
    """How many labels of augmentation it reads; without the key as many as the pretraining has."""

    @model_validator(mode="after")
    def _parts_fit(self):
        edm2 = self.architecture == "edm2"
        if edm2 and (self.embedding != "positional" or self.span):
            key, found = (
                ("span", str(self.span).lower())
                if self.span
                else ("embedding", f"'{self.embedding}'")
            )
            raise ValueError(f"{key} is {found} with architecture 'edm2'; allowed: no such key")
        if self.uncertainty and not edm2:
            found = f"uncertainty is true with architecture '{self.architecture}'"
            raise ValueError(f"{found}; allowed: edm2")
        return self

    def resolved(self):
        """The network's settings, without keys that it does not use."""
        optional = ("span", "uncertainty", "augment_labels")
        unset = {key for key in optional if not getattr(self, key)}
        return self.model_dump(
            exclude=unset | ({"embedding"} if self.architecture == "edm2" else set())
        )
