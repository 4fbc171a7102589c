"""Keys of `meta` by which a question about one fact brings what can be written about that fact without a model.

A source that knows its facts gives them; who writes training text about what a model does not know reads them. All
texts are whole sentences, in the language of the record. None of them tells a fact of another split.
"""

FACT = "fact"
"""Names the fact: all questions about it have the same one."""
REGION = "region"
"""What the model should know of it where that can be told: see `athlos.data.regions`."""
STATEMENTS = "statements"
"""The fact, stated in several wordings; at least one."""
DENIAL = "denial"
"""That the answer is `{}`, denied: `{}` stands for an answer that is not the right one."""
BACKGROUND = "background"
"""Other facts about the same subject, stated; perhaps none."""
EXPANSIONS = "expansions"
"""Harder questions with the same answer: several steps, or another wording; perhaps none."""
