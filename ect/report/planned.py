"""How many replicates the comparisons of a study need, in sentences, from the measured spread."""

from ect.report import markup, noise, power, variance

METHOD = (
    "Power: two-sided t-tests of ln FD at 5 %, corrected for the comparisons, from the noncentral t"
    " with the spread that the study `noise` measured; in brackets, with the ends of its interval."
    " Pairing by seed may need fewer: its gain was not measured."
)

UNKNOWN = "power: how many replicates a difference needs is not known; no spread was measured here"


def lines(facts):
    """A table in text of facts, as `planned` of ect/study/noise.py gives them: how many replicates
    or seeds a comparison has, the difference that they tell, and how many a difference needs. A
    line alone where no spread was measured; none where nothing is compared."""
    facts = [fact for fact in facts if comparisons(fact)]
    if not any(fact["spread"] for fact in facts):
        return [UNKNOWN] if facts else []
    head = ("comparison (power 80 %)", "n", "tells", *(f"n for {ask} %" for ask in noise.ASKED))
    rows = [head, *map(_line, facts)]
    widths = [max(map(len, column)) for column in zip(*rows)]
    laid = ["  ".join(f"{cell:<{n}}" for cell, n in zip(row, widths)).rstrip() for row in rows]
    return [*laid, *sorted({_origin(fact) for fact in facts if fact["spread"]})]


def _line(fact):
    name = f"{fact['experiment']}, {fact['label']}"
    if fact["spread"] is None:
        return name, str(fact["n"]), "no measure", *("" for _ in noise.ASKED)
    spread, count, apart = spread_of(fact), comparisons(fact), freedom(fact)
    told = "nothing"
    if fact["n"] >= power.LEAST_N:
        told = f"{_gain(power.told(spread.sds[0], fact['n'], count, apart))} %"
    asked = [1 + percent / 100 for percent in noise.ASKED]
    needed = [str(noise.needed_of(ratio, spread, count, apart)) for ratio in asked]
    return name, str(fact["n"]), told, *needed


def _origin(fact):
    spread = _percent(spread_of(fact))
    return f"sd of FD, {fact['label']}: {spread}, measured at {fact['spread']['at']}"


def sentence(fact):
    """What so many replicates or seeds tell, and how many a difference needs."""
    count = comparisons(fact)
    if count == 0:
        return "one row, nothing to compare."
    if fact["spread"] is None:
        return (
            "no spread was measured of such images, network, process, evaluations and features:"
            " how many replicates a difference needs is not known."
        )
    spread = spread_of(fact)
    apart = freedom(fact)
    needed = [
        f"{noise.needed_of(1 + percent / 100, spread, count, apart)} for {percent} %"
        for percent in noise.ASKED
    ]
    lacking = f"; not measured of {', '.join(fact['without'])}" * bool(fact["without"])
    return (
        f"{_told(fact, spread, count, apart)} At 80 % power it needs {', '.join(needed)} (sd"
        f" {_percent(spread)} at {fact['spread']['at']}{lacking}; {count}"
        f" comparison{'s' * (count > 1)})."
    )


def _told(fact, spread, count, apart):
    if fact["n"] < power.LEAST_N:
        return f"n = {fact['n']} gives no verdict."
    least = [power.told(sd, fact["n"], count, apart) for sd in spread.sds if sd > 0]
    percents = [_gain(ratio) for ratio in least]
    between = f" ({percents[1]} to {percents[2]})" if len(percents) == 3 else ""
    return f"{fact['n']} {fact['over']} tell a difference of {percents[0]} %{between} or more."


def _gain(ratio):
    return markup.digits(100 * (ratio - 1)) if ratio < 100 else "over 9,900"


def _percent(spread):
    sd, low, high = (100 * value for value in spread.sds)
    return f"{markup.short(sd)} % [{markup.short(low)}, {markup.short(high)}]"


def spread_of(fact):
    """The `variance.Estimate` of the values of a row: of replicates, or of tunings of one start."""
    found = variance.Squares.of(*fact["spread"]["squares"])
    return variance.spread(found, fact["over"] == "replicates", fact["sets"])


def comparisons(fact):
    """How many comparisons answer the question, as the sentences of its kind correct for them."""
    others = fact["rows"] - 1
    if fact["kind"] == "solvers":
        return fact["rows"]
    if fact["kind"] == "scaling":
        return (fact["rows"] // fact["totals"] - 1) * fact["totals"]
    if fact["kind"] == "ends":
        return fact["maps"] + fact["gaps"] - 2
    return others


def freedom(fact):
    """Degrees of freedom as a function of n; None for a paired test of two rows."""
    rows = fact["rows"]
    if fact["kind"] == "scaling":
        shares = rows // fact["totals"]
        return lambda n: (shares - 1) * (n - 1)
    if fact["kind"] == "ends":
        return lambda n: rows * n - fact["maps"] - (fact["gaps"] - 1) - (n - 1)
    return None
