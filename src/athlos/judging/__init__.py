"""Judges: how right is an answer?"""
