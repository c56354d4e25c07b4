"""The style sheet of the page, on a screen and on A4."""

from __future__ import annotations

from magicbert.report.palette import FAINT, FONTS, INK, LINE, MUTED

CSS = f"""
* {{ box-sizing: border-box; }}
body {{ margin: 0 auto; padding: 2.5rem 1.25rem 4rem; max-width: 1000px; color: {INK};
  background: #fff; font: 16px/1.55 {FONTS}; }}
h1 {{ margin: 0; font-size: 1.9rem; line-height: 1.2; letter-spacing: -0.01em; }}
h2 {{ margin: 2.75rem 0 0.5rem; padding-top: 0.9rem; border-top: 1px solid {LINE};
  font-size: 1.3rem; line-height: 1.3; }}
h3 {{ margin: 1.6rem 0 0.3rem; font-size: 1.02rem; }}
p {{ margin: 0.4rem 0 0.9rem; max-width: 46rem; }}
a {{ color: #0063a6; }}
.lede, figcaption, .not-run, caption, dt, .tile span, .tile small {{ color: {MUTED}; }}
.lede {{ margin-top: 0.35rem; }}
.not-run {{ font-style: italic; }}
nav {{ margin: 1rem 0 1.5rem; font-size: 0.92rem; }}
nav a {{ margin-right: 1.1rem; text-decoration: none; }}
nav a:hover {{ text-decoration: underline; }}
.tiles {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(185px, 1fr));
  gap: 0.75rem; margin: 1.25rem 0; }}
.tile {{ padding: 0.8rem 1rem; background: {FAINT}; border-radius: 6px; }}
.tile span {{ display: block; font-size: 0.85rem; }}
.tile b {{ display: block; font-size: 1.6rem; font-weight: 600; line-height: 1.3;
  font-variant-numeric: tabular-nums; }}
.tile small {{ font-size: 0.82rem; }}
figure {{ margin: 1.1rem 0 1.6rem; }}
figure svg, .strip svg {{ display: block; width: 100%; height: auto; }}
figcaption {{ margin-top: 0.35rem; font-size: 0.88rem; max-width: 46rem; }}
.strip {{ margin: 1rem 0 0.2rem; }}
.stacks text {{ font-family: {FONTS}; }}
.stacks .block {{ text-anchor: middle; dominant-baseline: central; }}
.stacks .layer {{ font-size: 10px; fill: {MUTED}; text-anchor: end;
  dominant-baseline: central; }}
.stacks .note {{ font-size: 11px; fill: {MUTED}; }}
.wide {{ overflow-x: auto; }}
table {{ border-collapse: collapse; margin: 0.6rem 0 1.2rem; font-size: 0.92rem; width: 100%; }}
caption {{ text-align: left; font-size: 0.88rem; padding-bottom: 0.3rem; }}
th, td {{ padding: 0.34rem 0.9rem 0.34rem 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid {LINE}; }}
th {{ font-weight: 600; border-bottom-color: {MUTED}; }}
.number {{ text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }}
th:last-child, td:last-child {{ padding-right: 0; }}
td small {{ color: {MUTED}; }}
code, pre {{ font: 0.86em/1.5 ui-monospace, 'SF Mono', Menlo, Consolas, 'Liberation Mono',
  monospace; }}
code {{ overflow-wrap: anywhere; }}
td code {{ white-space: nowrap; }}
pre {{ margin: 0.4rem 0 1rem; padding: 0.8rem 1rem; background: {FAINT}; border-radius: 6px;
  overflow-x: auto; }}
.pairs {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(170px, 1fr));
  gap: 0.6rem 1.2rem; margin: 0.8rem 0 1.2rem; }}
.pairs dt {{ font-size: 0.85rem; }}
.pairs dd {{ margin: 0; font-variant-numeric: tabular-nums; }}
summary {{ cursor: pointer; padding: 0.2rem 0; }}
@media print {{
  @page {{ size: A4; margin: 15mm 14mm; }}
  body {{ padding: 0; max-width: none; font-size: 10pt; }}
  nav, details {{ display: none; }}
  h2 {{ margin-top: 1.6rem; }}
  h2, h3, caption, p:has(+ figure) {{ break-after: avoid; }}
  figure {{ margin: 0.6rem 0 1rem; }}
  figure svg {{ max-height: 92mm; }}
  .pairs {{ grid-template-columns: repeat(5, 1fr); }}
  figure, tr, table, .tile, .pairs div {{ break-inside: avoid; }}
  .tiles {{ grid-template-columns: repeat(4, 1fr); gap: 0.5rem; }}
  .tile {{ padding: 0.5rem 0.7rem; border: 1px solid {LINE}; }}
  .tile b {{ font-size: 1.25rem; }}
  .wide {{ overflow: visible; }}
  table {{ font-size: 0.85em; }}
  * {{ print-color-adjust: exact; -webkit-print-color-adjust: exact; }}
}}
"""
