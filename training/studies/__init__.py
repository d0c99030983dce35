"""The paper's experiments (section 5) on one data set: what `nann experiments` runs.

- `settings`: what a size (quick, full) trains and sweeps
- `runs`: a trained model with its bundle and its searches, cached on disk; `store`: results by a hash of their inputs
- `study`: what a study is made of; `registry`: all of them, in the order of the report
- `table3`, `curves`, `rounds`, `flatness`, `sensitivity`, `readings`, `today` (measured by `baselines`),
  `growth_study` (by `growth`), `seeded` (by `seeds`): the studies
- `execute`: runs them and writes JSON and plots; `report`: the Markdown; `provenance`: machine, versions, date
"""
