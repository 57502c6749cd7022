"""Environment of a process that trains, to be set before torch and transformers are imported."""

PROCESS_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    # OpenMP threads that wait by spinning made steps 5 to 10 times slower wherever another process wanted a core.
    "OMP_WAIT_POLICY": "PASSIVE",
    # Without it flash-attn's backward adds in any order, and a resumed trial would differ in its last bits.
    "FLASH_ATTENTION_DETERMINISTIC": "1",
    # Read when cuBLAS is first used: with other workspaces its sums depend on what runs beside them.
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
}
