from .kidney import KidneyRecipe as KidneyRecipe
from .precision import chosen_precision as chosen_precision
from .precision import start_study as start_study
from .recipe import WATCHED as WATCHED
from .recipe import Recipe as Recipe
from .tumor import TumorRecipe as TumorRecipe
