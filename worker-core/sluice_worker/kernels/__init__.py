"""The operations a model asks of a device, behind one interface."""
