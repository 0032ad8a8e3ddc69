"""What is told of nodes otherwise than by samples."""
