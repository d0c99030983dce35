"""The paper's experiments (section 5) on one data set: what `nann experiments` runs.

- `settings`: what a size (quick, full) trains and sweeps
- `runs`: a trained model with its bundle and its searches, cached on disk
- `study`: what a study is made of; `table3`, `figures3_4` to `figure7`, `readings`, `tuned`, `baselines`, `growth`,
  `seeds`: the studies; `measures`: what the last three measure
- `report`: all of them, in the order of the report; `execute`: runs them
"""
