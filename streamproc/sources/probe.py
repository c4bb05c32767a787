"""placeholder"""
async def probe(*a: object) -> str: return ""
