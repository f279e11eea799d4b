rule experts:
    output:
        "results/{benchmark}/experts/{folder}/shard{shard}.safetensors",
    log:
        "results/{benchmark}/logs/experts/{folder}/shard{shard}.log",
    params:
        config=workflow_config,
        dataset=jobs.dataset_of_folder,
        spec=jobs.experts_spec,
    shell:
        "iadd experts {params.config} --dataset {params.dataset} --shard {wildcards.shard}"
        " > {log} 2>&1"
