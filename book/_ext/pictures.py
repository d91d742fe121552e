"""A cell's caption belongs to its picture alone: myst-nb would repeat it under every output.

The chapter with two sliders shows a picture and, in the same cell, data for a script.
"""

from __future__ import annotations

from myst_nb.sphinx_ import SphinxNbRenderer


def setup(app):
    render = SphinxNbRenderer._render_nb_cell_code_outputs

    def caption_pictures(self, token, outputs):
        cell = token.meta["metadata"]
        bare = {k: v for k, v in cell.get("mystnb", {}).items() if k != "figure"}
        for output in outputs:
            picture = any(mime.startswith("image/") for mime in output.get("data", {}))
            token.meta["metadata"] = cell if picture else {**cell, "mystnb": bare}
            render(self, token, [output])
        token.meta["metadata"] = cell

    if render.__name__ != caption_pictures.__name__:  # once, however many builds a process makes
        SphinxNbRenderer._render_nb_cell_code_outputs = caption_pictures
    return {"parallel_read_safe": True, "parallel_write_safe": True, "version": "1"}
