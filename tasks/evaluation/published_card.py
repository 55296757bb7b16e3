"""The card of a published network in words, as Markdown: what it looks at, how often it is wrong, what it is for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tasks.networks.published_scores import GENERATED, PHOTOGRAPH
from tasks.spec.source_names import name_in_words


def card_in_words(card: Mapping[str, Any]) -> str:
    """A page for those who want to use a network, from the card of `publish/network`."""
    return "\n".join([*_head(card), *_deliveries(card), *_generators(card), *_photographs(card), *_sets(card)]) + "\n"


def rate_in_words(rate: Mapping[str, Any] | None) -> str:
    """A share in percent with its interval; n/a where there is none."""
    if rate is None or rate["value"] is None:
        return "n/a"
    interval = "" if rate["low"] is None else f" [{100 * rate['low']:.1f}, {100 * rate['high']:.1f}]"
    return f"{100 * rate['value']:.1f}{interval}"


def _delivery_in_words(cell: Mapping[str, Any]) -> str:
    """What happened to the pictures of a delivery."""
    done = cell.get("perturbation", cell)
    words = []
    if done.get("factors") is not None:
        words.append("scaled by {:g} to {:g}".format(*done["factors"]))
    if done.get("shorter_side") is not None:
        words.append(f"reduced to {done['shorter_side']} pixels")
    quality = done.get("quality", done.get("jpeg_quality"))
    if quality is not None:
        words.append(f"saved as {'WebP' if done.get('saved_as') == 'webp' else 'JPEG'} {quality}")
    if done.get("saved_as") == "palette":
        words.append("reduced to 256 colours")
    name = cell["delivery"].replace("-", " ")
    return f"{name}: {', '.join(words)}" if words else "as posted, full size"


def _head(card: Mapping[str, Any]) -> Iterator[str]:
    spec = card["about"]["spec"]
    yield f"# {card['name']}"
    yield ""
    yield (
        "Says of a picture: probably generated, probably a photograph, or that it cannot tell. It does not look at "
        f"what a picture shows, but at {card['windows']} windows of {card['side']} original pixels. There it counts "
        "how often small patterns of noise residuals occur (co-occurrences: Fridrich & Kodovsky 2012; Pevny, Bas & "
        f"Fridrich 2010; Goljan, Fridrich & Cogranne 2014), and weighs {card['parameters'] - 1:,} counts by a linear "
        "discriminant with a shrunken covariance. "
        f"One ONNX file of {card['bytes'] / 1000:.0f} kB, sha256 `{card['sha256']}`."
    )
    yield ""
    yield f"Made by `telltale publish {card['about']['experiment']}`."
    yield ""
    yield "## What it is not for"
    yield ""
    yield (
        "No evidence against a person, and no proof of origin. It is wrong as often as the tables say, and more "
        "often where pictures differ from those that it was tested on: other cameras, other generators, edited or "
        "printed pictures, drawings, photographs of which a part was generated; and pictures that were treated in "
        "other ways than below, such as enlarged further or reduced to few colours, of which it calls many "
        "photographs generated. Whoever wants to deceive it can. Where it cannot tell, its silence is no hint "
        "either way."
    )
    yield ""
    yield (
        "It answers JPEG and PNG files of at least that size; in other formats it was not tested as they are. "
        f"Promised, on val pictures: at most {100 * spec['false_alarms']:.0f} % of photographs are called generated in "
        f"any delivery, and at most {100 * spec['missed']:.0f} % of pictures of known generators photographs. Below is "
        "what came of it on test pictures, each of which was scored by a network that was fitted without it; the "
        "network in the file is fitted on all of them. Generators are weighted alike; intervals are 95 %, over groups "
        "of pictures."
    )


def _deliveries(card: Mapping[str, Any]) -> Iterator[str]:
    yield ""
    yield "## By delivery"
    yield ""
    yield (
        "In percent. The first column is of photographs as they came. In the others both classes have one history of "
        "JPEG: photographs were encoded as the generators' files are, and generated files of other formats as "
        "photographs; what such a format left before stays in them. *Of unknown generators*: the mean, the smallest "
        "and the largest share among generators that were left out of the training with their family."
    )
    yield ""
    yield (
        "| delivery | photographs called generated | the same, one history | fakes called photographs | of unknown "
        "generators | answered | right, of the answered |"
    )
    yield "|---|---|---|---|---|---|---|"
    for cell in card["error_rates"]:
        names = ("false_alarms", "false_alarms_matched", "missed", "missed_unknown", "answered", "right")
        cells = " | ".join(rate_in_words(cell.get(name)) for name in names)
        if not cell["answered"]["value"]:
            cells = " | ".join(["none"] * len(names))
        yield f"| {_delivery_in_words(cell)} | {cells} |"


def _generators(card: Mapping[str, Any]) -> Iterator[str]:
    yield ""
    yield "## By generator"
    yield ""
    yield "In percent: called generated, called photographs; the same by networks that had not seen its family."
    for cell in card["error_rates"]:
        rows = card["generators"][cell["delivery"]]
        if not any(row["known"][GENERATED]["value"] or row["known"][PHOTOGRAPH]["value"] for row in rows):
            continue
        yield ""
        yield f"### {_delivery_in_words(cell).capitalize()}"
        yield ""
        yield "| generator | pictures | generated | photograph | unknown: generated | unknown: photograph |"
        yield "|---|---|---|---|---|---|"
        for row in rows:
            known, unknown = row["known"], row.get("unknown", {})
            rates = (known[GENERATED], known[PHOTOGRAPH], unknown.get(GENERATED), unknown.get(PHOTOGRAPH))
            cells = " | ".join(rate_in_words(rate) for rate in rates)
            yield f"| {name_in_words(row['generator'])} | {row['pictures']} | {cells} |"


def _photographs(card: Mapping[str, Any]) -> Iterator[str]:
    yield ""
    yield "## Photographs"
    yield ""
    yield "In percent: called generated, and called photographs."
    yield ""
    yield "| photographs | history | delivery | pictures | generated | photograph |"
    yield "|---|---|---|---|---|---|"
    for delivery, rows in card["photographs"].items():
        for row in rows:
            if not row[GENERATED]["value"] and not row[PHOTOGRAPH]["value"]:
                continue
            history = "as they came" if row["history"] == "as-came" else "as the generators' files"
            yield (
                f"| {name_in_words(row['photographs'])} | {history} | {delivery} | {row['pictures']} | "
                f"{rate_in_words(row[GENERATED])} | {rate_in_words(row[PHOTOGRAPH])} |"
            )


def _sets(card: Mapping[str, Any]) -> Iterator[str]:
    yield ""
    yield "## Pictures that it was fitted on"
    yield ""
    yield "| set | what | pictures | licences, as the set states them |"
    yield "|---|---|---|---|"
    for one in card["sets"]:
        licences = ", ".join(f"{name} ({count})" for name, count in one["licences"].items())
        yield f"| {name_in_words(one['name'])} | {one['label']} | {one['pictures']} | {licences} |"
    yield ""
    yield (
        "The network holds weights of counts, no pictures, and is given away under the licence of telltale. That the "
        "licences of the pictures do not reach it is an opinion, which no court has confirmed."
    )
