"""The looks of a report beyond those of every page: light and dark, from 390 pixels on."""

#: plots, wherever they stand
PLOTS = """
:root { --best: #2563eb; --base: #c2410c; --done: #0f766e; --stop: #737373; --bad: #dc2626; --run: #a16207; }
@media (prefers-color-scheme: dark) {
  :root { --accent: #7cacff; --best: #7cacff; --base: #fb923c; --done: #2dd4bf; --stop: #a3a3a3; --bad: #f87171;
          --run: #facc15; --soft: #a3a3a3; }
}
@media (prefers-color-scheme: light) { :root { --soft: #666; } }
figcaption { color: var(--soft); font-size: .85rem; }
svg { max-width: calc(var(--width) * 1.4); } .wide .plot svg { min-width: calc(var(--width) * .85); }
svg { display: block; width: 100%; height: auto; font: 13px system-ui, sans-serif; overflow: visible; }
svg text { fill: currentColor; paint-order: stroke; stroke: Canvas; stroke-width: 3px; stroke-linejoin: round; }
svg .tick, svg .note { fill: var(--soft); font-size: 12px; }
svg .grid { stroke: var(--line); fill: none; } svg .axis { stroke: var(--soft); fill: none; }
svg .line { fill: none; stroke-width: 1.2; stroke-linejoin: round; }
svg .dot { stroke-width: 1.3; }
.best { stroke: var(--best); fill: var(--best); background: var(--best); }
.base { stroke: var(--base); fill: var(--base); background: var(--base); }
.done { stroke: var(--done); fill: var(--done); background: var(--done); }
.stop { stroke: var(--stop); fill: var(--stop); background: var(--stop); }
.bad { stroke: var(--bad); fill: var(--bad); background: var(--bad); }
.run { stroke: var(--run); fill: var(--run); background: var(--run); }
svg .line.best, svg .line.base { stroke-width: 2.6; } svg .line.stop { opacity: .4; } svg .line.done { opacity: .6; }
svg .open { fill: Canvas; } svg .bar { stroke: none; } svg .bar.stop { opacity: .6; }
.legend { display: flex; flex-wrap: wrap; gap: .1rem 1rem; font-size: .85rem; }
.legend i { display: inline-block; width: .7rem; height: .7rem; border-radius: .2rem; margin-right: .4rem; }
.legend i.open { background: none; border: 1.5px solid currentColor; box-sizing: border-box; }
"""
STYLE = (
    PLOTS
    + """
@media (max-width: 30rem) { main { padding: 1rem; } thead ~ tbody td { min-width: 5.5rem; } }
p.plain, p.lead, p.warning { color: inherit; } p.lead { font-size: 1.15rem; margin: .5rem 0 1rem; }
p.warning { border-left: 3px solid var(--base); padding-left: .75rem; margin: .75rem 0; }
section { margin-top: 2rem; } h2 { border-bottom: 1px solid var(--line); padding-bottom: .25rem; }
.scroll, .plot { overflow-x: auto; } td, th { padding-block: .3rem; overflow-wrap: break-word; }
tbody th { width: min(14rem, 35%); min-width: 6.5rem; } tbody th + td { overflow-wrap: anywhere; }
td { min-width: 3rem; } .figures { display: grid; gap: 1rem 2rem; margin: .75rem 0;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); }
figure { margin: .5rem 0; min-width: 0; } figure.wide { margin: .75rem 0; } figure h3 { margin-top: .5rem; }
details { margin: .4rem 0; } summary { cursor: pointer; }
pre { overflow: auto; max-height: 32rem; padding: .75rem; border: 1px solid var(--line); border-radius: .35rem; }
pre code { overflow-wrap: normal; }
@media print { details > pre { max-height: none; } }
"""
)
