"""Where nodes hang: racks and breakers, leaves and pods of the network."""
