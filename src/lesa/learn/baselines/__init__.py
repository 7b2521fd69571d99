"""The methods that LESA is compared with, one module each; all are called as LESA is.

`lesa.learn.methods.KINDS` names the models, `lesa.learn.recipe.RECIPES` how each is trained.
"""
