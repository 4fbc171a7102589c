"""What a run is: from its config to its folder and its record."""
