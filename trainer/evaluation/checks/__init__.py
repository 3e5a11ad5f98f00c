"""What makes a score believable: does the model hear, choose by place, know the data, and what does it cost.

hearing.py   rows asked again with other audio and with silence
orders.py    rows asked with their choices in other orders
leaks.py     rows whose audio or question lies in the training shards; questions.py finds them under other templates
cost.py      seconds and tokens of single questions
judge.py     judgements of answers that no rule can score
"""
