"""The audio of planned rows: decoded ahead of the expert, doubted where the machine may be at fault, shared by experts.

worker imports it. It imports plan and store, and knows neither model nor Ray.
"""
