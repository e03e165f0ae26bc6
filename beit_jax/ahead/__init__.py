"""What a compiled step would cost on hardware that is not here."""
