"""The measurements behind studies that compare searches, apart from the models they are made on."""
