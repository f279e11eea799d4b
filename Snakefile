# The benchmark as a graph: config -> plan -> one rule a stage -> all. No logic here.
from iadd.pipeline.workflow import Jobs

if not config:

    configfile: "config/digits.yaml"


jobs = Jobs(config)
workflow_config = workflow.configfiles[-1]


container: "docker://python:3.11"


wildcard_constraints:
    ipc=r"\d+",
    seed=r"\d+",
    shard=r"\d+",
    tuned=r"(-tuned)?",


include: "workflow/rules/experts.smk"
include: "workflow/rules/search.smk"
include: "workflow/rules/distill.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/collect.smk"
include: "workflow/rules/site.smk"


rule all:
    default_target: True
    input:
        expand("results/{benchmark}/site/index.html", benchmark=jobs.config.benchmark),
        # By name: what a failed job took along is made again, though the tables are newer.
        jobs.evaluations,
