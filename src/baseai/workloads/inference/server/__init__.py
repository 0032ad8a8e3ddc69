"""The HTTP side of a replica: OpenAI, Open Inference Protocol and plain JSON over one loaded engine."""
