import Recipes
import Testing

@Suite struct ConversionRecipeTests {}
