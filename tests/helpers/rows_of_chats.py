"""Files of dialogues for tests of the data set chat."""

TOLD = {"role": "system", "content": "Be brief."}

ASKED = {"role": "user", "content": "How many legs have 3 cats?"}

SAID = {"role": "assistant", "content": "12"}

MORE = {"role": "user", "content": "And 4?"}

THEN = {"role": "assistant", "content": "16"}

DIALOGUE = [TOLD, ASKED, SAID, MORE, THEN]
