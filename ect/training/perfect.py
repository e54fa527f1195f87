"""What the loss comes to where there is nothing left to learn.

x_t and x_r share their image and noise, so they lie on no common path of the ODE, and not even the
perfect consistency function maps them to one image: the loss has a floor. For Gaussian data, with
covariance of eigenvalues lambda_i, that function is known: in the direction i

    f(x_t) = (x_t / alpha(t)) sqrt(lambda_i / (lambda_i + s^2)),    s = sigma / alpha,

about the mean. As r -> t its slope along (x_0, eps) has the mean square

    E |f(x_t) - f(x_r)|^2 / (s - r)^2 -> sum_i (lambda_i / (lambda_i + s^2))^2,

which neither vanishes nor depends on the network: with the weight 1 / (s - r) on the norm the loss
stays at its mean root over the prior. Here the run's own objective evaluates that function.
"""

import csv
import functools

import torch

from ect.data.batches import Images
from ect.flowloss import TwoTimes
from ect.models import build
from ect.objective import PRIORS, PluginObjective
from ect.process import expand
from ect.runtime import checkpoint
from ect.runtime.seeds import generator_of
from ect.runtime.versions import setting
from ect.training.parts import make_objective, settings_with_start

POINTS = 32  # of a run's progress
DRAWS, BATCH = 8192, 1024  # pairs (image, noise) at each of them
IMAGES = 8192  # whose covariance stands for that of all
COLUMNS = ("images", "loss", "standard_error")


class Gaussian:
    """The perfect consistency function of Gaussian data, in the basis of its eigenvectors; or,
    with `power` 1, the perfect denoiser E[x_0 | x_t], which a teacher is.

    `spectrum` (D,) are the eigenvalues of the covariance; images are (B, 1, 1, D).
    """

    label = augment = None

    def __init__(self, process, spectrum, power=0.5):
        self.process, self.spectrum, self.power = process, spectrum, power

    def conditioned_on(self, label):
        return self

    augmented = of = conditioned_on

    def __call__(self, x_t, t):
        s = expand(self.process.clock(t), x_t)
        shrunk = (self.spectrum / (self.spectrum + s**2)) ** self.power
        return x_t / expand(self.process.coefficients(t)[0], x_t) * shrunk

    def draw(self, count, generator):
        """Images (count, 1, 1, D) less their mean."""
        noise = torch.randn((count, 1, 1, len(self.spectrum)), generator=generator)
        return noise.double() * self.spectrum.sqrt()


def run(settings, data, out, init=None):
    """Write a csv with the columns `COLUMNS`: the loss of the perfect consistency function of
    Gaussian data with the covariance of the images in `data`, along the tuning run of `settings`;
    `init` is the model that an imported start gives. Computed on the CPU."""
    if setting(settings["recipe"], "trajectories") is not None:
        raise ValueError(
            "recipe.trajectories: found some, on which a perfect model has no loss; allowed: a"
            " recipe without"
        )
    images = Images(data)
    settings = settings_with_start(settings, init, images)
    objective = make_objective(settings, build.description(settings, images)["sd"])
    if isinstance(objective, (TwoTimes, PluginObjective)):
        found = f"schedule.map: found '{settings['schedule']['map']}', a loss of its own"
        raise ValueError(f"{found}; allowed: a map t -> r, or continuous")
    eigenvalues = spectrum(images)
    f = Gaussian(objective.process, eigenvalues)
    objective.teacher = Gaussian(objective.process, eigenvalues, power=1)
    objective.frozen = f
    total = 1000 * settings["last_kimg"]
    with checkpoint.replacing(out) as scratch, open(scratch, "w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        for point in range(POINTS):
            found = losses(objective, f, settings["recipe"]["prior"], point / POINTS)
            error = float(found.std() / len(found) ** 0.5)
            table.writerow([total * point // POINTS, float(found.mean()), error])


def spectrum(images):
    """The eigenvalues (D,) of the covariance of the first `IMAGES` training images."""
    x = images.encode(images.pixels[:IMAGES]).flatten(1).double()
    x = x - x.mean(0)
    found = torch.linalg.eigvalsh(x.T @ x / len(x))
    return found.clamp(min=float(found.max()) * 1e-12)


@torch.no_grad()
def losses(objective, f, prior, progress, count=DRAWS):
    """The losses (count,) of f at a run's progress, the same images and noise at each."""
    generator = generator_of("perfect")
    found = []
    for _ in range(0, count, BATCH):
        draw = functools.partial(PRIORS[prior["kind"]], generator, BATCH, **prior["options"])
        s = objective.levels(draw).double()
        x = f.draw(BATCH, generator)
        eps = torch.randn(x.shape, generator=generator).double()
        found.append(objective(f, x, eps, s, progress).loss)
    return torch.cat(found)
