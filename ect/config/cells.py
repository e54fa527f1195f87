"""The cells of a study's grid, a model and a sampler each, with the folders of their artefacts.
Loads no torch.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Milestone:
    """A pretrained model: a point on a chain. `kimg` 0 is the random start."""

    pretrain: str
    seed: int
    kimg: int

    @property
    def folder(self):
        return f"pretrain/{self.pretrain}/s{self.seed}/k{self.kimg}"


@dataclass(frozen=True)
class Tuned:
    """A consistency model tuned from a milestone."""

    start: Milestone
    schedule: str
    recipe: str
    kimg: int
    seed: int

    @property
    def folder(self):
        start = self.start.folder.replace("pretrain/", "tune/", 1)
        return f"{start}/{self.schedule}/{self.recipe}/k{self.kimg}/s{self.seed}"


@dataclass(frozen=True)
class Sampled:
    """A model and the sampler that draws from it, with the seeds of a replicate."""

    model: Milestone | Tuned
    sampler: str
    replicate: int = 0

    @property
    def folder(self):
        replicate = f"-replicate-{self.replicate}" if self.replicate else ""
        return f"{self.model.folder}/{self.sampler}{replicate}"
