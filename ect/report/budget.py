"""Sentences on the best share of a budget: does over 90 % belong to pretraining, and from which
budget on?"""

import math

from ect.report import markup, optimum

METHOD = (
    f"In round brackets, what {optimum.COVER} % of the bootstrap samples over replicates prefer; in"
    " square ones, the 95 % interval of a t-test of ln FD, paired by replicate, with one variance"
    " for all shares. p and interval are corrected for the other shares and totals (Bonferroni)."
    " The best share is the best of those measured."
)
FAR = 1e6  # times the largest total: beyond this no extrapolation is told
QUESTION = f"Over {optimum.ASKED} % to pretraining?"


def answer(rows, labels):
    """The sentences for every start and sampler among rows of a csv, as `sentences.read` gives
    them; `labels` are {sampler: its label}."""
    found = optimum.series(map(_row, rows))
    starts = {(key.pretrain, key.schedule, key.recipe) for key in found}
    for key, totals in found.items():
        schedule = f" ({key.schedule}, {key.recipe})" if len(starts) > 2 else ""
        name = f"{labels[key.sampler]}, {key.pretrain}{schedule}"
        yield f"{name}: {_bests(totals)} {_verdict(totals)}"
        yield from _law(name, totals)
    if found:
        yield METHOD


def _row(row):
    facts = {name: row[name] for name in optimum.Series._fields}
    shares = {"total": int(row["total_kimg"]), "share": float(row["pretrain_share_percent"])}
    return facts | shares | {"seeds": row["seeds"].split(";"), "values": row["fd_each"]}


def _bests(totals):
    """The best share of each total, with its band."""
    bests = {total: optimum.best(shares) for total, shares in totals.items()}
    told = [f"{best.share:g} %{_between(best)} of {total} kimg" for total, best in bests.items()]
    return f"the best share is {', '.join(told)} ({_n(bests.values())})."


def _between(best):
    return "" if math.isnan(best.low) else f" ({best.low:g} to {best.high:g})"


def _n(bests):
    counts = sorted({best.n for best in bests})
    return f"n = {counts[0]}" if len(counts) == 1 else f"n = {counts[0]} to {counts[-1]}"


def _verdict(totals):
    """The answer at each total, and what 90 % costs there."""
    said: dict[str, list[str]] = {"no": [], "yes": [], "open": [], "no verdict, n < 3,": []}
    costs = []
    for total, shares in totals.items():
        best, cost = optimum.best(shares), optimum.cost(shares, len(totals))
        said[_answer(best, cost)].append(str(total))
        if cost:
            factor, low, high, p = cost
            likely = f"p = {p:.2g}" if p >= 1e-4 else "p < 0.0001"
            between = f"[{markup.digits(low)}, {markup.digits(high)}]"
            costs.append(f"{markup.digits(factor)} times {between} at {total} kimg ({likely})")
    told = [f"{word} at {_and(found)} kimg" for word, found in said.items() if found]
    text = f"{QUESTION} {'; '.join(told).capitalize()}."
    if costs:
        text += f" With {optimum.ASKED} % FD is, against the best share, {', '.join(costs)}."
    return text


def _answer(best, cost):
    """No where band and test agree, yes where the whole band is at 90 % or above."""
    if best.n < optimum.LEAST_N:
        return "no verdict, n < 3,"
    if best.low >= optimum.ASKED:
        return "yes"
    return "no" if best.high < optimum.ASKED and cost and cost[-1] < optimum.LEVEL else "open"


def _law(name, totals):
    law = optimum.law(totals)
    if law is None:
        return
    last, reached = max(totals), law.total()
    text = (
        f"{name}: the best tuning grows as total^{law.power:.2f} ({law.low:.2f} to {law.high:.2f}),"
        f" fitted to totals of {min(totals)} to {last} kimg"
    )
    if reached > FAR * last:
        yield f"{text}; by it {optimum.ASKED} % is far above any such total."
    elif reached > last:
        yield (
            f"{text}. Extrapolation: {optimum.ASKED} % would be best from {markup.digits(reached)}"
            " kimg on, which was not measured."
        )
    else:
        yield f"{text}; by it {optimum.ASKED} % is best from {markup.digits(reached)} kimg on."


def _and(words):
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
