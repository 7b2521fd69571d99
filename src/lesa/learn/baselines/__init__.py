"""The methods that LESA is compared with, a module each, called as the model is: regions x label vectors -> scores."""
