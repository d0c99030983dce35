"""The paper's experiments (section 5) on one data set: what `nann experiments` runs.

- `settings`: what each size (quick, full) trains and sweeps
- `runs`: trained models with their bundles and searches, cached on disk
- `study`: the parts of a study; `table3`, `figures3_4` to `figure7`, `readings`, `tuned`, `baselines`, `growth`,
  `seeds`, `filters`: the studies; `measures`: the measurements of the last four; `curves`: quality against cost
- `report`: all studies, in the order of the report; `execute`: runs them
"""
