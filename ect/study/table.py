"""The plan of a study as text. Loads no torch."""

from ect.config import missing

UNKNOWN = "unknown"
WHY = (
    "Unknown: that work was not measured on that device yet (--rate gives a rate of training), or a"
    " start's network is known only after its import."
)
BY_FILES = (
    "To do are jobs without a file; `snakemake -n`, which also knows of changed settings and"
    " images, did not answer here."
)
PARTS = ("weights", "gradients", "moments", "averages", "teacher", "target", "activations")


def table(costs):
    """The plan as a table in text: name, to do, in all."""
    lines: list[tuple[str, ...]] = [(f"study {costs['study']}", "to do", "in all")]
    jobs = costs["jobs"].values()
    lines.append(("jobs", *(f"{sum(job[key] for job in jobs):,}" for key in ("to_do", "in_all"))))
    lines += [_line(f"  {rule}", both, "{:,}") for rule, both in costs["jobs"].items()]
    for name in ("pretraining_images", "tuning_images", "images_to_draw", "network_evaluations"):
        lines.append(_line(name.replace("_", " "), costs[name], "{:,}"))
    for hours in costs["hours"]:
        lines.append(_line(_name_of(hours), hours, "{:,.2f}"))
    disk = {key: size and size / 1e9 for key, size in costs["disk_bytes"].items()}
    lines.append(_line("disk, GB", disk, "{:,.2f}"))
    widths = [max(map(len, column)) for column in zip(*lines)]
    rows = [f"{a:<{widths[0]}}  {b:>{widths[1]}}  {c:>{widths[2]}}".rstrip() for a, b, c in lines]
    rows += [f"network {name}: {_sizes(found)}" for name, found in costs["networks"].items()]
    rows += [_memory(costs["memory"])] if costs["memory"] else []
    rows += [BY_FILES] if costs["by_files"] else []
    rows += [WHY] if any(UNKNOWN in line for line in lines) else []
    return "\n".join([*rows, *_missing(costs["missing"])])


def _memory(found):
    """The run that holds the most, and what."""
    parts = ", ".join(f"{name} {found[name] / 1e9:.3g}" for name in PARTS if found[name])
    return (
        f"memory of a step of {found['run']}, {found['images']} images at a time:"
        f" {found['total'] / 1e9:.3g} GB ({parts})"
    )


def _missing(found):
    """A line for each file that is not there; what a run needs first, what its jobs fetch last."""
    ordered = sorted((missing.Needed(**one) for one in found), key=lambda one: one.job is not None)
    return [missing.told(one) for one in ordered]


def _sizes(found):
    """The levels of a network in words."""
    parts = []
    for level in found:
        layers = level["layers"]
        attends = f", {layers} attention layer{'s' * (layers > 1)}" if layers else ""
        parts.append(f"{level['side']} x {level['side']} ({level['width']} wide{attends})")
    return ", ".join(parts)


def _name_of(hours):
    if hours["device"]:
        unit = "core-hours" if hours["device"].startswith("cpu") else "GPU-hours"
        return f"{unit} of {hours['of']}, {hours['device']}"
    rate = f", at {hours['rate']:g} images/s" if hours["rate"] else ""
    return f"hours of {hours['of']}{rate}"


def _line(name, both, form):
    """A row of the table."""
    return name, *(
        UNKNOWN if both[k] is None else form.format(both[k]) for k in ("to_do", "in_all")
    )
