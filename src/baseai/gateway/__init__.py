"""The gateway: the door that customers' requests to their services come through."""
