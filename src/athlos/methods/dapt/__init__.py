"""DaPT: a question is taken apart in its own language and in English, and solved by both graphs together."""
