"""Tables as SVG: a bar for each contestant, its spread as a line, one panel below the other."""

from xml.sax.saxutils import escape

WIDTH, LABELS, BARS, ROW, HEAD = 1060, 330, 400, 22, 46
OURS, THEIRS = "#2f6fb0", "#b5b5b5"


def text(x, y, words, size=12, anchor="start", weight="normal"):
    return ('<text x="%.1f" y="%.1f" font-size="%d" text-anchor="%s" font-weight="%s">%s</text>' %
            (x, y, size, anchor, weight, escape(words)))


def panel(measure, top):
    rows = measure["contestants"]
    most = max(row["max"] for row in rows) or 1
    title = "%s [%s, %s is better]" % (measure["name"], measure["unit"],
                                       "more" if measure["higher_is_better"] else "less")
    if measure["target"]:
        title += "  target: " + measure["target"]
    svg = [text(10, top + 28, title, 14, weight="bold")]
    for i, row in enumerate(rows):
        y, scale = top + HEAD + i * ROW, BARS / most
        colour = OURS if row["name"].startswith("cowgate") else THEIRS
        svg.append(text(LABELS - 8, y + 13, row["name"], anchor="end"))
        svg.append('<rect x="%d" y="%.1f" width="%.1f" height="%d" fill="%s"/>' %
                   (LABELS, y, row["median"] * scale, ROW - 6, colour))
        svg.append('<path d="M%.1f %.1fH%.1f" stroke="black"/>' %
                   (LABELS + row["min"] * scale, y + ROW / 2 - 3, LABELS + row["max"] * scale))
        words = "%.*f" % (measure["digits"], row["median"])
        if row["ratio"] is not None:
            words += "   %s" % row["ratio_says"]
        svg.append(text(LABELS + BARS + 8, y + 13, words))
    return svg, HEAD + len(rows) * ROW + 10


def section(result, path):
    """Writes the tables of a section's result."""
    svg, top = [text(10, 24, "bench/run %s, %d rounds" % (result["section"], result["rounds"]), 16,
                     weight="bold")], 30
    for measure in result["measures"]:
        if measure["contestants"]:
            lines, height = panel(measure, top)
            svg += lines
            top += height
    with open(path, "w") as f:
        f.write('<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" '
                'font-family="sans-serif"><rect width="100%%" height="100%%" fill="white"/>\n' %
                (WIDTH, top + 10))
        f.write("\n".join(svg) + "\n</svg>\n")
