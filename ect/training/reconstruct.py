"""The average of a length that no run kept, from those that its milestones did (EDM2, sec. 3.2).

A power average after t images has the profile p(n) = (g + 1) n^g / t^(g + 1) for n <= t: the weight
of the network's weights after n images. Stored are K of them, p_i with (t_i, g_i). The combination
sum x_i p_i nearest to a wanted profile p, in the L2 norm, solves A x = b, A_ij = <p_i, p_j>,
b_i = <p_i, p>; the same sum of the stored weights is the average.
"""

import contextlib
import json

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from ect.models import build
from ect.runtime import checkpoint
from ect.training import average
from ect.training.parts import require_chain

FARTHEST = 0.2  # from the wanted profile, as a share of its norm


def product(t, g, other_t, other_g):
    """<p, q> of the profiles (t, g) and (other_t, other_g): numbers or arrays (EDM2, eq. 151)."""
    first, last = np.minimum(t, other_t), np.maximum(t, other_t)
    later = np.where(t < other_t, other_g, g)  # the exponent of the profile that ends last
    return (g + 1) * (other_g + 1) / (g + other_g + 1) * (first / last) ** later / last


def solve(stored, wanted):
    """(x, error) of the combination of stored profiles, (t, std) each, nearest to a wanted one: its
    K weights, which add up to 1, and its distance from it as a share of its norm."""
    t, g = np.array([(seen, average.exponent(std)) for seen, std in stored]).T
    end, wanted_g = wanted[0], average.exponent(wanted[1])
    t, end = t / end, 1.0
    inner, aims = product(t[:, None], g[:, None], t, g), product(t, g, end, wanted_g)
    norms = np.sqrt(np.diag(inner))
    x = np.linalg.solve(inner / np.outer(norms, norms), aims / norms) / norms
    x = x / x.sum()
    square = product(end, wanted_g, end, wanted_g)
    error = 1 - 2 * x @ aims / square + x @ inner @ x / square
    return x, float(np.sqrt(max(error, 0.0)))


def near(times, lengths, wanted):
    """`solve` for an average over `wanted` of the images of the last milestone, of those after
    `times` images that keep `lengths`; raises `ValueError` where it is farther than `FARTHEST`."""
    x, error = solve([(t, std) for t in times for std in lengths], (max(times), wanted))
    if error > FARTHEST:
        raise ValueError(
            f"ema_std: found {wanted:g}, which averages of {', '.join(map(str, lengths))} at"
            f" {len(times)} milestones reproduce to {error:.0%} only; allowed: to"
            f" {FARTHEST:.0%}, by more milestones, or a length nearer to theirs"
        )
    return x, error


def require_near(config):
    """Raise `ValueError` for an average of a config that its job would refuse."""
    for name, block in config.averages.items():
        chain = config.pretrain[block.pretrain]
        times = [1000 * kimg for kimg in chain.milestones_to(block.kimg)[1:]]
        try:
            near(times, chain.ema_std, block.ema_std)
        except ValueError as error:
            raise ValueError(f"averages.{name}.{error}") from None


def run(settings, model, states, out):
    """Write the model whose weights are averaged over `ema_std` of the images that the last of the
    training states has seen; returns the distance of its profile from the wanted one.

    `settings` holds `ema_std`, and `stored`, the lengths that the chain keeps, in this order;
    `model` is a model.safetensors of the chain, which describes the network. Raises `ValueError`
    for states that are not of one chain with these averages, or a distance above `FARTHEST`.
    """
    wanted, lengths = settings["ema_std"], settings["stored"]
    _, about = build.read(model)
    _require_lengths(_require_one_chain([model, *states]), lengths, states[0])
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(safe_open(path, framework="pt")) for path in states]
        times = [_seen(file, path) for file, path in zip(files, states)]
        names = [(file, head) for file in files for head in average.names(len(lengths))]
        if len(set(times)) < len(times):
            found = ", ".join(map(str, times))
            raise ValueError(f"states: found images seen {found}; allowed: milestones, each once")
        x, error = near(times, lengths, wanted)
        weights = _combined(names, x, states)
    checkpoint.save(out, build.fitted(weights, about), **about)
    return error


def _require_one_chain(paths):
    """The settings of a run, None where no record tells them; raises `ValueError` unless the runs
    of all files, by the records beside them, are of one chain."""
    known = None
    for path in paths:
        known = require_chain(path, known) or known
    return known


def _require_lengths(known, lengths, path):
    """Raise `ValueError` unless the chain, of these settings, keeps averages of these lengths."""
    if known is None:
        return
    kept = (known.get("recipe") or {}).get("ema_std")
    if (kept if isinstance(kept, list) else [kept]) != lengths:
        found = "an average with a half-life" if kept is None else f"averages over {kept}"
        raise ValueError(f"{path}: found {found}; allowed: over {lengths}, as `stored` says")


def _seen(file, path):
    seen = json.loads((file.metadata() or {}).get("about", "{}")).get("seen")
    if type(seen) is not int or seen <= 0:
        raise ValueError(f"{path}: found no images seen; allowed: a state.safetensors of training")
    return seen


def _combined(names, x, states):
    """The tensors by name, one at a time: the weights x of (file, head) in float64."""
    first, head = names[0]
    keys = list(checkpoint.within(head, dict.fromkeys(first.keys())))
    found = {}
    for key in keys:
        total = torch.zeros((), dtype=torch.float64)
        for (file, head), share in zip(names, x):
            try:
                total = total + share * file.get_tensor(f"{head}.{key}").double()
            except SafetensorError:
                raise ValueError(
                    f"states: found none of '{head}.{key}' in one of {len(states)} files; allowed:"
                    " milestones of one chain, with as many averages as `stored` has"
                ) from None
        found[key] = total.to(torch.float32)
    return found
