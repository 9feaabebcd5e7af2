from .kidney import KidneyRecipe as KidneyRecipe
from .recipe import Recipe as Recipe
from .tumor import TumorRecipe as TumorRecipe
