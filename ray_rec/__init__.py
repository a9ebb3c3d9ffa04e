"""A streaming recommender on Ray that learns from every click."""
