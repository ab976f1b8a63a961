"""Scenes of places: emblems on plaques and placards in the letters of the land, on the zoom environment's scenes."""
