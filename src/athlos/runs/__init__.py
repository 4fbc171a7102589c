"""What a run is: its parts put together, its trainings as stages, its evaluation, its folder."""
