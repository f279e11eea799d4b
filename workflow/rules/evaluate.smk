rule evaluate:
    input:
        jobs.judged_by,
        # The only rule that reads the test images.
        ancient(jobs.train_and_test),
        "<root>/distilled/{dataset}/{method}/ipc{ipc}{tuned}/seed{seed}.safetensors",
    output:
        "<root>/evaluations/{dataset}/{method}/ipc{ipc}{tuned}/seed{seed}.parquet",
    log:
        "<root>/logs/evaluate/{dataset}/{method}/ipc{ipc}{tuned}/seed{seed}.log",
    group:
        asks.run_group
    resources:
        config=jobs.path,
        mem_mb=asks.memory,
        runtime=asks.minutes,
        slots=asks.slots("evaluate"),
    params:
        device=asks.device("evaluate"),
        tuned=jobs.tuned,
        spec=jobs.evaluation_spec,
    shell:
        "iadd evaluate {resources.config:q} --dataset {wildcards.dataset:q} --method {wildcards.method:q}"
        " --ipc {wildcards.ipc} --seed {wildcards.seed} {params.tuned} {params.device} > {log:q} 2>&1"
