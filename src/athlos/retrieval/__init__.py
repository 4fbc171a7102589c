"""Corpora and indexes: what finds passages for constructions and pipelines."""
