"""Citations after the fact."""

from dataclasses import replace

from tests.methods.start.made import question

from athlos.methods.start.attach import with_best_match


def test_each_sentence_cites_the_document_that_shares_most_words():
    text = "Ada0 wrote Orla0 [4]. Ada0 liked tea. Nothing!"
    assert with_best_match(text, question()) == "Ada0 wrote Orla0 [2]. Ada0 liked tea [4]. Nothing [1]!"
    assert with_best_match("", question()) == ""
    assert with_best_match("Ada0 wrote [1]. Nothing!", replace(question(), passages=[])) == "Ada0 wrote. Nothing!"
