"""What the procedural generator can build: one function a thing, each a list of painted parts.

Things stand upright (+Y), about two units large. Proportions come from the design's random generator, so no
two designs have equal geometry.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from hashlib import sha256

import numpy as np

from grid_client.design import Design, Part, grained, mottled, panelled, spotted, striped
from grid_client.patterns import COLOURS, Colour, Paint, blend, checker, contrast, noise, spots, stripes
from grid_client.surfaces import Array, Box, Placed, ball, cone, lathe, ring, rotation

X, Y, Z = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)


def donut(design: Design) -> list[Part]:
    radius, tube = design.vary(0.68), design.vary(0.3)
    dough, icing = (0.78, 0.55, 0.28), design.colour(0, "pink")
    crumb = contrast(dough, 0.35)
    waves, phase = int(design.rng.integers(5, 9)), design.rng.uniform(0, 6.28)

    def iced(points: Array) -> Array:
        edge = 0.05 * np.sin(waves * np.arctan2(points[:, 2], points[:, 0]) + phase)
        top = np.clip((points[:, 1] - edge) / 0.02, 0, 1)
        below = blend(dough, crumb, spots(points, 0.09, 0.3, design.salt))
        above = blend(icing, contrast(icing, 0.3), noise(points, 0.12, design.salt))
        return blend(below, above, top)

    return [Part(Placed(ring(radius, tube)), iced), *_sprinkles(design, radius, tube)]


def _sprinkles(design: Design, radius: float, tube: float) -> list[Part]:
    tones = [COLOURS[name] for name in ("yellow", "cyan", "white", "green", "red", "violet")]
    parts = []
    for k in range(int(design.rng.integers(55, 75))):
        around, over = design.rng.uniform(0, 2 * np.pi), design.rng.uniform(0.25, np.pi - 0.25)
        reach = radius + tube * np.cos(over)
        at = (reach * np.cos(around), tube * np.sin(over), reach * np.sin(around))
        turn = rotation(Y, design.rng.uniform(0, 6.28)) @ rotation(Z, np.pi / 2)
        tone = tones[k % len(tones)]
        shape = Placed(ball(0.028, 0.075), at, turn)
        parts.append(Part(shape, striped(tone, contrast(tone, 0.2), 0, 0.07)))
    return parts


def table(design: Design) -> list[Part]:
    wide, deep, tall = design.vary(0.95), design.vary(0.65), design.vary(0.95)
    top, leg = design.colour(0, "wooden"), design.colour(1, "brown")
    thick, inset = design.vary(0.07), 0.14
    parts = [
        Part(Placed(Box((wide, thick, deep)), (0, tall / 2, 0)), grained(top, 0, design.salt)),
        Part(Placed(Box((wide - 0.2, 0.08, deep - 0.2)), (0, tall / 2 - thick - 0.08, 0)), grained(leg, 0, 3)),
    ]
    foot, knee = design.vary(0.07), design.vary(0.12)
    for side in (-1, 1):
        for front in (-1, 1):
            at = (side * (wide - inset), -tall / 2, front * (deep - inset))
            parts.append(Part(Placed(cone(foot, knee, tall - thick), at), grained(leg, 1, design.salt)))
    bowl = lathe([(0, 0), (0.12, 0), (0.24, 0.14), (0.2, 0.14), (0.1, 0.04), (0, 0.04)])
    glaze = striped(COLOURS["blue"], COLOURS["white"], 1, 0.07)
    return [*parts, Part(Placed(bowl, (design.vary(0.3), tall / 2 + thick, 0.1)), glaze)]


def tree(design: Design) -> list[Part]:
    bark, leaves = COLOURS["brown"], design.colour(0, "green")
    tall = design.vary(0.8)
    trunk = lathe([(0, 0), (0.24, 0), (0.15, 0.15), (0.11, tall), (0, tall)])
    parts = [Part(Placed(trunk, (0, -1, 0)), grained(bark, 1, design.salt))]
    crown = tall - 1 + design.vary(0.35)
    blobs = [(0.0, 0.0, 0.0, design.vary(0.48))]
    for k in range(int(design.rng.integers(8, 11))):
        angle = k * 2.39996 + design.rng.uniform(-0.3, 0.3)
        height, reach = design.rng.uniform(-0.22, 0.45), design.vary(0.4, 0.15)
        blobs.append((reach * np.cos(angle), height, reach * np.sin(angle), design.vary(0.27, 0.2)))
    for x, y, z, radius in blobs:
        tone = design.colour(0, "green")
        leafage = spotted(tone, contrast(leaves, 0.5), 0.11, design.salt)
        parts.append(Part(Placed(ball(radius), (x, crown + y, z)), leafage))
        fruit = (x * 1.5, crown + y + 0.1, z * 1.5)
        parts.append(Part(Placed(ball(0.055), fruit), spotted(COLOURS["red"], COLOURS["orange"], 0.06, 1)))
    return parts


def snowman(design: Design) -> list[Part]:
    snow, shade = (0.93, 0.95, 0.98), (0.62, 0.72, 0.86)
    low, middle, top = design.vary(0.5), design.vary(0.36), design.vary(0.26)
    waist = -1 + low * 1.7
    neck = waist + low * 0.2 + middle * 1.35
    head = neck + top * 0.85
    white = mottled(snow, shade, design.salt)
    parts = [Part(Placed(ball(r), (0, y, 0)), white) for r, y in ((low, low - 1), (top, head))]
    parts.append(Part(Placed(ball(middle), (0, waist + middle * 0.75, 0)), white))
    scarf = design.colour(0, "red")
    parts.append(Part(Placed(ring(top * 0.95, 0.085), (0, neck, 0)), _twisted(scarf, contrast(scarf))))
    hat, band = design.colour(1, "black"), design.colour(2, "orange")
    felt = spotted(hat, contrast(hat, 0.35), 0.08, 2)
    parts.append(Part(Placed(cone(top * 1.3, top * 1.3, 0.05), (0, head + top * 0.72, 0)), felt))
    parts.append(Part(Placed(cone(top * 0.85, top * 0.8, 0.36), (0, head + top * 0.74, 0)), felt))
    parts.append(Part(Placed(ring(top * 0.84, 0.03), (0, head + top + 0.02, 0)), striped(band, hat, 0, 0.09)))
    nose = Placed(cone(0.06, 0.008, 0.3), (0, head, top * 0.9), rotation(X, np.pi / 2))
    parts.append(Part(nose, striped(COLOURS["orange"], COLOURS["yellow"], 2, 0.06)))
    return parts + _coal(top, head, middle, waist) + _twigs(design, middle, waist)


def _twisted(first: Colour, second: Colour) -> Paint:
    def paint(points: Array) -> Array:
        angle = np.arctan2(points[:, 2], points[:, 0])
        return blend(first, second, (np.sin(24 * angle) > 0.2).astype(np.float64))

    return paint


def _coal(top: float, head: float, middle: float, waist: float) -> list[Part]:
    coal = spotted((0.08, 0.08, 0.09), (0.3, 0.3, 0.32), 0.04, 5)
    eyes = [(side * top * 0.36, head + top * 0.3, top * 0.86) for side in (-1, 1)]
    buttons = [(0.0, waist + middle * (0.75 + k * 0.35), middle * np.cos(k * 0.36)) for k in (-1.2, -0.2, 0.8)]
    return [Part(Placed(ball(0.04), at), coal) for at in (*eyes, *buttons)]


def _twigs(design: Design, middle: float, waist: float) -> list[Part]:
    bark = grained(COLOURS["brown"], 1, design.salt)
    return [
        Part(
            Placed(
                cone(0.045, 0.03, design.vary(0.5)),
                (side * middle * 0.85, waist + middle, 0),
                rotation(Z, -side * design.vary(1.0, 0.2)),
            ),
            bark,
        )
        for side in (-1, 1)
    ]


def robot(design: Design) -> list[Part]:
    metal, trim = design.colour(0, "silver"), design.colour(1, "orange")
    body = (design.vary(0.36), design.vary(0.36), design.vary(0.26))
    head = (design.vary(0.24), design.vary(0.2), design.vary(0.2))
    face = body[1] + 0.12 + head[1]
    plates, joints = panelled(metal, 0.18), striped(trim, contrast(trim, 0.6), 1, 0.085)
    parts = [
        Part(Box(body), plates),
        Part(Placed(Box(head), (0, face, 0)), panelled(trim, 0.16)),
        Part(Placed(cone(0.1, 0.1, 0.16), (0, body[1] - 0.02, 0)), joints),
        Part(Placed(cone(0.025, 0.02, 0.22), (0, face + head[1], 0)), joints),
        Part(Placed(ball(0.06), (0, face + head[1] + 0.24, 0)), spotted(COLOURS["red"], trim, 0.05, 1)),
        Part(Placed(Box((0.2, 0.14, 0.02)), (0, 0.05, body[2])), _display(design.salt)),
    ]
    for side in (-1, 1):
        parts += _limbs(design, side, body, plates, joints)
        eye = Placed(ball(0.065), (side * head[0] * 0.45, face + 0.03, head[2]))
        parts.append(Part(eye, spotted(COLOURS["cyan"], COLOURS["white"], 0.06, 2)))
    return parts


def _display(salt: int) -> Paint:
    return lambda p: blend(COLOURS["navy"], COLOURS["cyan"], spots(p, 0.08, 0.36, salt))


def _limbs(design: Design, side: int, body: tuple[float, float, float], plates: Paint, joints: Paint) -> list[Part]:
    shoulder = (side * (body[0] + 0.09), body[1] - 0.1, 0.0)
    arm = design.vary(0.55)
    tilt = rotation(Z, np.pi + side * design.vary(0.22, 0.4))
    hand = np.array(shoulder) + tilt @ np.array([0, arm, 0])
    hip = side * body[0] * 0.55
    leg = design.vary(0.42)
    return [
        Part(Placed(ball(0.12), shoulder), joints),
        Part(Placed(cone(0.08, 0.075, arm), shoulder, tilt), joints),
        Part(Placed(ball(0.11), (float(hand[0]), float(hand[1]), float(hand[2]))), plates),
        Part(Placed(cone(0.1, 0.1, leg), (hip, -body[1] - leg + 0.02, 0)), joints),
        Part(Placed(Box((0.13, 0.06, 0.2)), (hip, -body[1] - leg, 0.06)), plates),
    ]


def sword(design: Design) -> list[Part]:
    steel, hilt = design.colour(0, "silver"), design.colour(1, "golden")
    length, wide = design.vary(1.25), design.vary(0.2)
    blade = lathe([(0, 0), (wide, 0), (wide * 0.82, length * 0.78), (0, length)])
    guard, grip = design.vary(0.42), design.vary(0.42)

    def etched(points: Array) -> Array:
        middle = (np.abs(points[:, 0]) < 0.055).astype(np.float64)
        runes = middle * np.maximum(checker(points, 0.05), stripes(points, 1, 0.16))
        polish = blend(steel, contrast(steel, 0.3), stripes(points, 1, 0.5, 1.0))
        return blend(polish, contrast(steel, 0.75), runes)

    leather = (0.3, 0.16, 0.1)
    cross = Placed(cone(0.09, 0.09, 2 * guard), (guard, -0.26, 0), rotation(Z, np.pi / 2))
    return [
        Part(Placed(blade, (0, -0.22, 0), stretch=(1, 1, 0.42)), etched),
        Part(cross, striped(hilt, contrast(hilt), 0, 0.1)),
        *[
            Part(Placed(ball(0.12), (side * guard, -0.26, 0)), spotted(hilt, COLOURS["red"], 0.1, 3))
            for side in (-1, 1)
        ],
        Part(
            Placed(cone(0.085, 0.085, grip), (0, -0.28 - grip, 0)),
            striped(leather, (0.6, 0.4, 0.22), 1, 0.09),
        ),
        Part(Placed(ball(0.13), (0, -0.34 - grip, 0)), spotted(hilt, COLOURS["blue"], 0.1, design.salt)),
    ]


def plate(design: Design) -> list[Part]:
    glaze, motif = design.colour(0, "white"), design.colour(1, "blue")
    rim, deep = design.vary(0.98), design.vary(0.2)
    well = rim * 0.6
    profile = [(0, -0.05), (well, -0.05), (rim, deep - 0.05), (rim, deep), (well, 0.02), (0, 0.02)]
    petals = int(design.rng.integers(5, 9))

    def painted(points: Array) -> Array:
        radius = np.hypot(points[:, 0], points[:, 2])
        angle = np.arctan2(points[:, 2], points[:, 0])
        rings = ((radius > rim * 0.86) & (radius < rim * 0.97)) | (np.abs(radius - well) < 0.05)
        flowers = radius < well * (0.45 + 0.25 * np.cos(petals * angle))
        drawn = (rings | flowers).astype(np.float64)
        return blend(blend(glaze, motif, drawn), contrast(motif, 0.3), 0.5 * spots(points, 0.2, 0.3, design.salt))

    return [Part(lathe(profile), painted)]


def toy_ball(design: Design) -> list[Part]:
    first, second = design.colour(0, "red"), design.colour(1, "white")
    third = design.colour(2, "blue")
    panels = int(design.rng.integers(3, 6))
    radius, tall = design.vary(0.95, 0.05), design.vary(0.95, 0.05)

    def painted(points: Array) -> Array:
        sector = np.arctan2(points[:, 2], points[:, 0]) * panels / np.pi
        base = blend(first, second, (np.floor(sector) % 2).astype(np.float64))
        seam = (np.abs(sector - np.rint(sector)) < 0.05).astype(np.float64)
        marks = np.maximum(seam, spots(points, 0.16, 0.3, design.salt))
        caps = (np.abs(points[:, 1]) > 0.82 * tall).astype(np.float64)
        return blend(blend(base, third, caps), contrast(third, 0.4), marks)

    valve = Part(Placed(ball(0.06), (0, tall, 0)), spotted(third, first, 0.05, 1))
    return [Part(ball(radius, tall), painted), valve]


RECIPES: dict[str, Callable[[Design], list[Part]]] = {
    "donut": donut,
    "table": table,
    "tree": tree,
    "snowman": snowman,
    "robot": robot,
    "sword": sword,
    "plate": plate,
    "ball": toy_ball,
}
SYNONYMS = {
    synonym: name
    for name, synonyms in {
        "donut": ("doughnut", "bagel", "ring"),
        "table": ("desk", "bench"),
        "tree": ("oak", "plant", "bush"),
        "robot": ("android", "mech"),
        "sword": ("dagger", "knife", "katana"),
        "plate": ("dish", "bowl"),
        "ball": ("sphere", "planet", "globe"),
    }.items()
    for synonym in synonyms
}


def recipe_for(prompt: str) -> str:
    """The first thing named in the prompt that can be built; for unknown words one chosen by their hash."""
    words = re.findall(r"[a-z]+", prompt.casefold())
    for word in words:
        for form in (word, word.removesuffix("s")):
            name = SYNONYMS.get(form, form)
            if name in RECIPES:
                return name
    digest = sha256(" ".join(words).encode() or prompt.encode()).digest()
    return sorted(RECIPES)[digest[0] % len(RECIPES)]
