"""Scores and targets -> metrics under named rules, with intervals; published results."""
