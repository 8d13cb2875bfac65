"""The parts that keenstream leans on, run on one machine: Kafka, Triton and Milvus under one supervisor."""
