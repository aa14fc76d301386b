"""How the report looks."""

STYLE = """
:root { --ink: #1c2430; --soft: #5d6a7a; --line: #e3e7ec; --good: #2c7a4b; --look: #a86a12; --bad: #a8322a; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.2rem 1.4rem 4rem; max-width: 62rem; color: var(--ink); background: #fff;
       font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.75rem; margin: 0 0 .2rem; line-height: 1.25; } h2 { font-size: 1.3rem; margin: 0; }
h3 { font-size: 1rem; margin: 1.6rem 0 .4rem; }
p { margin: .5rem 0; max-width: 46rem; } .soft { color: var(--soft); }
section { border-top: 1px solid var(--line); margin-top: 2.2rem; padding-top: 1.6rem; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: .8rem; margin-top: 1.5rem; }
.card { border: 1px solid var(--line); border-left-width: 5px; border-radius: 6px; padding: .7rem .9rem;
        color: inherit; text-decoration: none; font-size: .92rem; }
.card b { display: block; font-size: .95rem; }
.good { border-left-color: var(--good); } .look { border-left-color: var(--look); }
.bad { border-left-color: var(--bad); }
.verdict { display: inline-block; border-radius: 4px; padding: 0 .5rem; color: #fff; font-size: .85rem;
           font-weight: 600; }
.verdict.good { background: var(--good); } .verdict.look { background: var(--look); }
.verdict.bad { background: var(--bad); }
/* What is wider than the screen scrolls, and a shadow at its end says so. */
.wide { overflow-x: auto;
        background: linear-gradient(90deg, #fff 35%, transparent) left / 2.5rem 100% no-repeat local,
                    linear-gradient(270deg, #fff 35%, transparent) right / 2.5rem 100% no-repeat local,
                    linear-gradient(90deg, #c3cad3, transparent) left / .9rem 100% no-repeat scroll,
                    linear-gradient(270deg, #c3cad3, transparent) right / .9rem 100% no-repeat scroll; }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .75rem .25rem 0; text-align: right; white-space: nowrap;
         border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 600; }
th:first-child, td:first-child { text-align: left; white-space: normal; }
th.words, td.words { text-align: left; white-space: normal; }
td.bad { color: var(--bad); font-weight: 600; }
figure { margin: 1.1rem 0; } img { display: block; max-width: 100%; height: auto; }
figcaption { color: var(--soft); font-size: .88rem; }
p code { white-space: nowrap; } p code.command { white-space: normal; }
@media (max-width: 40rem) {
  body { padding: 1.4rem 1rem 3rem; } .wide img { max-width: max(100%, 40rem); }
  th:first-child, td:first-child { min-width: 6.5rem; } th.words, td.words { min-width: 6rem; }
}
summary { cursor: pointer; margin-top: 1rem; } code { background: #f3f5f7; border-radius: 3px; padding: .1rem .3rem; }
@media print { body { max-width: none; } section, figure { break-inside: avoid; } }
"""
